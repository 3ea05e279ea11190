"""sentence-transformers by itself, with nothing of embedtune: one piece of work, and what it took as a JSON line.

    python tests/benchmarks/run_sentence_transformers.py train --model MODEL --data DIR --steps 12 [--no-dropout]
    python tests/benchmarks/run_sentence_transformers.py mine|encode|evaluate --model MODEL --data DIR

Runs on a GPU where torch sees one. `peer.py` starts it; by hand it does for a quick look. See --help of each.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict, deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from measuring import Clock, held_mib, peak_memory_mib, timed
from sentence_transformers import SentenceTransformer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def open_model(arguments: argparse.Namespace) -> SentenceTransformer:
    model = SentenceTransformer(arguments.model, device=DEVICE)
    if arguments.max_length:
        model.max_seq_length = arguments.max_length
    return model


def autocast(arguments: argparse.Namespace) -> torch.autocast:
    return torch.autocast(DEVICE, dtype=DTYPES[arguments.precision], enabled=arguments.precision != "fp32")


def read_texts(file: Path) -> dict[str, str]:
    with file.open(encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    return {item["_id"]: f"{item.get('title', '')} {item.get('text', '')}".strip() for item in items}


def read_positives(data: Path, split: str) -> list[tuple[str, str]]:
    with (data / "qrels" / f"{split}.tsv").open(encoding="utf-8") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [(query_id, doc_id) for query_id, doc_id, grade in rows if int(grade) > 0]


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses
    from sentence_transformers.training_args import BatchSamplers
    from transformers import TrainerCallback

    if arguments.lora:
        from peft import LoraConfig
    imported = held_mib() if DEVICE == "cpu" else 0.0
    model = open_model(arguments)
    if arguments.lora:
        model.add_adapter(LoraConfig(r=arguments.lora, lora_alpha=2 * arguments.lora, target_modules="all-linear"))
    if arguments.no_dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    queries, corpus = read_texts(arguments.data / "queries.jsonl"), read_texts(arguments.data / "corpus.jsonl")
    rows = read_positives(arguments.data, "train")
    columns = {"query": [queries[q] for q, _ in rows], "positive": [corpus[d] for _, d in rows]}
    ids_of: dict[tuple[str, str], deque[tuple[str, str]]] = defaultdict(deque)
    for query_id, doc_id in rows:
        ids_of[queries[query_id], corpus[doc_id]].append((query_id, doc_id))
    loss: Any = losses.MultipleNegativesRankingLoss(model)
    if arguments.chunk_size:
        loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=arguments.chunk_size)
    batches: list[list[tuple[str, str]]] = []
    clock, taken = Clock(DEVICE), {}

    class Watch(TrainerCallback):
        """Measures whole steps, with the fetching of their batches, after the first `skip` ones."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == arguments.skip:
                clock.start()
            elif state.global_step == arguments.steps:
                taken.update(asdict(clock.read()), peak_memory_mib=peak_memory_mib(DEVICE))

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=tempfile.mkdtemp(),
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            learning_rate=2e-5,
            warmup_steps=round(0.1 * arguments.steps),
            bf16=arguments.precision == "bf16",
            fp16=arguments.precision == "fp16",
            use_cpu=DEVICE == "cpu",
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            seed=arguments.seed,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(columns),
        loss=loss,
        callbacks=[Watch()],
    )
    collate: Any = trainer.data_collator

    class Recorder:
        """The collator, which also notes the pairs of each batch."""

        def __getattr__(self, name: str) -> Any:
            return getattr(collate, name)

        def __call__(self, features: list[dict[str, str]]) -> Any:
            found = [ids_of[feature["query"], feature["positive"]] for feature in features]
            for same_texts in found:
                same_texts.rotate(-1)  # a pair of the same texts, the next time
            batches.append([same_texts[-1] for same_texts in found])
            return collate(features)

    trainer.data_collator = Recorder()
    trainer.train()
    batches = batches[: arguments.steps]  # the loader may have fetched one more
    if arguments.record:
        arguments.record.write_text(json.dumps({"batches": batches}))
    trained = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    work = sum(map(len, batches[arguments.skip :]))
    return {"work": work, **taken, "losses": trained, "imported_mib": imported}


def mine(arguments: argparse.Namespace) -> dict[str, Any]:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    model = open_model(arguments)
    queries, corpus = read_texts(arguments.data / "queries.jsonl"), read_texts(arguments.data / "corpus.jsonl")
    rows = read_positives(arguments.data, "train")
    pairs = Dataset.from_dict({"query": [queries[q] for q, _ in rows], "positive": [corpus[d] for _, d in rows]})
    with autocast(arguments), timed(DEVICE) as cold:
        mined = mine_hard_negatives(
            pairs,
            model,
            corpus=list(corpus.values()),
            relative_margin=0.05,
            num_negatives=3,
            output_format="n-tuple",
            verbose=False,
        )
    return {**asdict(cold), "negatives": 3 * len(mined), "peak_memory_mib": peak_memory_mib(DEVICE)}


def encode(arguments: argparse.Namespace) -> dict[str, Any]:
    model = open_model(arguments)
    texts = list(read_texts(arguments.data / "corpus.jsonl").values())[: arguments.documents]
    with autocast(arguments):
        model.encode(texts[:32])
        with timed(DEVICE) as timing:
            model.encode(texts)
    return {"work": len(texts), **asdict(timing), "peak_memory_mib": peak_memory_mib(DEVICE)}


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    model = open_model(arguments)
    queries, corpus = read_texts(arguments.data / "queries.jsonl"), read_texts(arguments.data / "corpus.jsonl")
    relevant: dict[str, set[str]] = {}
    for query_id, doc_id in read_positives(arguments.data, "test"):
        relevant.setdefault(query_id, set()).add(doc_id)
    evaluator = InformationRetrievalEvaluator(queries, corpus, relevant, write_csv=False)
    with autocast(arguments), timed(DEVICE) as cold:
        found = evaluator(model)
    value = next(value for name, value in found.items() if name.endswith("cosine_ndcg@10"))
    return {**asdict(cold), "nDCG@10": float(value), "peak_memory_mib": peak_memory_mib(DEVICE)}


VERBS = {"train": train, "mine": mine, "encode": encode, "evaluate": evaluate}


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = whole.add_subparsers(dest="verb", required=True)
    for name in VERBS:
        verb = verbs.add_parser(name)
        verb.add_argument("--model", required=True, help="a folder or hub id")
        verb.add_argument("--data", required=True, type=Path, help="a folder in BEIR's layout")
        verb.add_argument("--max-length", type=int)
        verb.add_argument("--precision", choices=DTYPES, default="fp32", help="by autocast; the weights stay in fp32")
        if name == "encode":
            verb.add_argument("--documents", type=int)
        if name == "train":
            verb.add_argument("--steps", type=int, default=12)
            verb.add_argument("--skip", type=int, default=2, help="steps that are not measured")
            verb.add_argument("--batch-size", type=int, default=32)
            verb.add_argument("--chunk-size", type=int, help="takes the cached loss, in chunks of so many")
            verb.add_argument("--no-dropout", action="store_true")
            verb.add_argument("--lora", type=int, help="trains an adapter of this rank on all linear layers")
            verb.add_argument("--seed", type=int, default=42)
            verb.add_argument("--record", type=Path, help="where the batches are written, for embedtune to replay")
    return whole


if __name__ == "__main__":
    given = parser().parse_args()
    print(json.dumps(VERBS[given.verb](given)))
