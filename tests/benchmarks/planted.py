"""Planted truth: positives hidden among the candidates, and how well each filter finds them. A benchmark, not a test.

    python tests/benchmarks/planted.py prepare SOURCE OUTPUT [--split train] [--test-share 0.5]
    python tests/benchmarks/planted.py table DATA --model MODEL [--depth 50] [--max-length 128]

`prepare` writes OUTPUT/<SOURCE's name>, a copy of the dataset folder in which every training query keeps one positive,
drawn by a fixed seed; the spare ones are moved to hidden/<split>.tsv, so that they look like negatives. A source that
has no training split (Cranfield) is split by query first: --test-share (0: all its queries train). `table` mines every
training query's candidates, asks every filter about them, and prints a Markdown table: of what a filter drops, how much
was a hidden positive (precision), and of the hidden positives among the candidates, how many it drops (recall).
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from embedtune.data.dataset import load_dataset
from embedtune.data.split import split_qrels
from embedtune.data.trec import read_qrels, write_qrels
from embedtune.models.encoder import load_encoder
from embedtune.negatives.candidates import MiningJob
from embedtune.negatives.evidence import MiningFiles, read_evidence
from embedtune.negatives.mine import mine
from embedtune.recipe import Chosen, Model, Negatives
from embedtune.types import Qrels

FILTERS = [
    Chosen(name="positive_ratio", options={"at_most": 0.9}),
    Chosen(name="positive_ratio", options={"at_most": 0.95}),
    Chosen(name="positive_margin", options={"margin": 0.05}),
    Chosen(name="absolute", options={"below": 0.7}),
    Chosen(name="mean_std", options={"deviations": 1.0}),
    Chosen(name="mean_std", options={"deviations": 2.0}),
    Chosen(name="whisker", options={"reach": 1.5}),
    Chosen(name="guide", options={"margin": 0.0}),
    Chosen(name="guide", options={"margin": 0.05}),
    Chosen(name="complementary", options={"at_most": 0.7}),
]


def prepare(source: Path, output: Path, split: str, test_share: float) -> None:
    target = output / source.name
    (target / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        shutil.copyfile(source / name, target / name)
    if (source / "qrels" / f"{split}.tsv").exists():
        shutil.copyfile(source / "qrels" / "test.tsv", target / "qrels" / "test.tsv")
        training = read_qrels(source / "qrels" / f"{split}.tsv")
    else:
        judged = read_qrels(source / "qrels" / "test.tsv")
        training = judged
        if test_share:
            parts = split_qrels(judged, {"test": test_share}, source=split, allow_overlap=True)
            write_qrels(target / "qrels" / "test.tsv", parts["test"])
            training = parts[split]
    kept, hidden = hide(training)
    write_qrels(target / "qrels" / f"{split}.tsv", kept)
    write_qrels(target / "hidden" / f"{split}.tsv", hidden)
    spare = sum(map(len, hidden.values()))
    print(f"{target}: {len(kept)} training queries; {spare} positives of {len(hidden)} of them are hidden")


def hide(qrels: Qrels, seed: int = 0) -> tuple[Qrels, Qrels]:
    """One positive for each query, and the others."""
    kept: Qrels = {}
    hidden: Qrels = {}
    for query_id, judged in sorted(qrels.items()):
        positives = sorted(doc_id for doc_id, grade in judged.items() if grade > 0)
        if not positives:
            continue
        one = random.Random(f"{seed} {query_id}").choice(positives)
        kept[query_id] = {one: judged[one]}
        if spare := {doc_id: judged[doc_id] for doc_id in positives if doc_id != one}:
            hidden[query_id] = spare
    return kept, hidden


def table(data: Path, model: str, depth: int, max_length: int) -> None:
    dataset, hidden = load_dataset(data, "train"), read_qrels(data / "hidden" / "train.tsv")
    encoder = load_encoder(Model(name=model, max_length=max_length))
    negatives = Negatives(
        mining=[Chosen(name="dense", options={"depth": depth})], filtering=FILTERS, teacher=model, empty="train"
    )
    with tempfile.TemporaryDirectory() as folder:
        files = MiningFiles(Path(folder) / "mined.run")
        mine(MiningJob(dataset=dataset, encoder=encoder, negatives=negatives), files.run)
        dropped, right, candidates, planted = Counter[str](), Counter[str](), 0, 0
        for candidate in read_evidence(files.evidence):
            is_hidden = candidate.doc_id in hidden.get(candidate.query_id, {})
            candidates += 1
            planted += is_hidden
            for verdict, chosen in zip(candidate.filters, FILTERS, strict=True):
                name = " ".join([chosen.name, *(f"{value:g}" for value in chosen.options.values())])
                dropped[name] += not verdict.keep
                right[name] += is_hidden and not verdict.keep
    total = sum(map(len, hidden.values()))
    print(f"{data.name}: {len(dataset.qrels)} queries, {candidates:,} candidates, {planted} of {total} hidden in them")
    print()
    print("| filter | dropped | precision | recall |\n|---|---|---|---|")
    for name in dropped:
        precision = right[name] / dropped[name] if dropped[name] else 0.0
        print(f"| {name} | {dropped[name]:,} | {precision:.3f} | {right[name] / max(1, planted):.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    preparing = verbs.add_parser("prepare")
    preparing.add_argument("source", type=Path)
    preparing.add_argument("output", type=Path)
    preparing.add_argument("--split", default="train")
    preparing.add_argument("--test-share", type=float, default=0.5)
    tabulating = verbs.add_parser("table")
    tabulating.add_argument("data", type=Path)
    tabulating.add_argument("--model", required=True)
    tabulating.add_argument("--depth", type=int, default=50)
    tabulating.add_argument("--max-length", type=int, default=128)
    given = vars(parser.parse_args())
    prepare(**given) if given.pop("verb") == "prepare" else table(**given)


if __name__ == "__main__":
    main()
