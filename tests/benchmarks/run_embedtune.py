"""embedtune on one piece of work, and what it took as a JSON line.

    python tests/benchmarks/run_embedtune.py train --model MODEL --data DIR --steps 12 [--set train.batch_size=64 ...]
    python tests/benchmarks/run_embedtune.py mine|refresh|encode|evaluate --model MODEL --data DIR [--precision auto]
    python tests/benchmarks/run_embedtune.py facts --model MODEL --data DIR --lengths 256     (the machine's rates, ...)

Runs on a GPU where torch sees one. `peer.py` starts it, with an EMBEDTUNE_CACHE of its own; by hand, set one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from measuring import Clock, peak_memory_mib, timed

from embedtune.data.dataset import load_dataset
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.loading import load_model
from embedtune.models.precision import DTYPES, resolve_device, resolve_precision
from embedtune.recipe import Chosen, Model, Negatives, load_recipe
from embedtune.types import Dataset

DEVICE = resolve_device().type
MINED = Negatives(
    mining=[Chosen(name="dense", options={"depth": 100})],
    filtering=[Chosen(name="positive_ratio", options={"at_most": 0.95})],
    sampling=Chosen(name="top", options={"count": 3}),
)


def open_encoder(given: argparse.Namespace) -> Encoder:
    return load_encoder(Model(name=given.model, max_length=given.max_length), precision=given.precision)


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """skipped: the share of tokens that selective backward left out, for each step."""
    from embedtune.train.run import train as run

    recipe = {
        "version": 1,
        "model": {"name": arguments.model, "max_length": arguments.max_length},
        "data": {"train": str(arguments.data)},
        "train": {"max_steps": arguments.steps},
    }
    clock, taken, losses, work, skipped = Clock(DEVICE), {}, [], [], []

    def watch(event: dict[str, Any]) -> None:
        """Measures whole steps, with the making of their batches, after the first `skip` ones."""
        if event["event"] == "phase" and event["name"] == "train":
            clock.start()
        elif event["event"] == "step":
            losses.append(event["loss"])
            skipped.append(event.get("skipped"))
            work.append(round(event["pairs_per_second"] * event["seconds"]))
            if event["step"] == arguments.skip:
                clock.start()
            elif event["step"] == arguments.steps:
                taken.update(asdict(clock.read()), peak_memory_mib=peak_memory_mib(DEVICE))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(json.dumps(recipe))  # JSON is YAML
        run(load_recipe(file, arguments.set), Path(folder) / "run", on_event=watch)
    return {"work": sum(work[arguments.skip :]), **taken, "losses": losses, "skipped": skipped}


def mine(arguments: argparse.Namespace) -> dict[str, Any]:
    """With an empty cache, and the same again."""
    dataset, encoder = load_dataset(arguments.data, "train"), open_encoder(arguments)
    with tempfile.TemporaryDirectory() as folder:
        cold, written = _mined(dataset, encoder, Path(folder) / "cold.run")
        again, _ = _mined(dataset, encoder, Path(folder) / "again.run")
    return {**cold, **_named("again", again), "negatives": written, "peak_memory_mib": peak_memory_mib(DEVICE)}


def refresh(arguments: argparse.Namespace) -> dict[str, Any]:
    """A model with a tower for each role: with an empty cache, and again once its query tower has learned."""
    from embedtune.train.live import two_towers

    dataset = load_dataset(arguments.data, "train")
    config, device = Model(name=arguments.model, max_length=arguments.max_length), resolve_device()
    towers = [load_model(config, device) for _ in range(2)]
    encoder = Encoder(two_towers(*towers), config.name, resolve_precision(arguments.precision, device))
    with tempfile.TemporaryDirectory() as folder:
        cold, _ = _mined(dataset, encoder, Path(folder) / "cold.run")
        with torch.no_grad():
            for weight in towers[0].parameters():  # the query tower's own
                weight.mul_(1.001)
        again, _ = _mined(dataset, encoder, Path(folder) / "refreshed.run")
    return {**cold, **_named("again", again), "peak_memory_mib": peak_memory_mib(DEVICE)}


def _mined(dataset: Dataset, encoder: Encoder, output: Path) -> tuple[dict[str, float], int]:
    from embedtune.negatives.candidates import MiningJob
    from embedtune.negatives.mine import mine as run_job

    with timed(DEVICE) as timing:
        report = run_job(MiningJob(dataset=dataset, encoder=encoder, negatives=MINED, draw=True), output)
    return asdict(timing), report.written


def _named(name: str, timing: dict[str, float]) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in timing.items()}


def encode(arguments: argparse.Namespace) -> dict[str, Any]:
    encoder, corpus = open_encoder(arguments), load_dataset(arguments.data).corpus
    items = [corpus[doc_id] for doc_id in corpus.ids[: arguments.documents]]  # a list: nothing is cached
    encoder.encode(items[:32], "document")
    with timed(DEVICE) as timing:
        encoder.encode(items, "document")
    return {"work": len(items), **asdict(timing), "peak_memory_mib": peak_memory_mib(DEVICE)}


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """With an empty cache, and the same again."""
    from embedtune.evaluate.retrieval import evaluate as measure

    dataset, encoder = load_dataset(arguments.data), open_encoder(arguments)
    with timed(DEVICE) as cold:
        found = measure(encoder, dataset, measures="nDCG@10 R@10 RR@10 AP@100")
    with timed(DEVICE) as again:
        measure(encoder, dataset, measures="nDCG@10 R@10 RR@10 AP@100")
    of_again = _named("again", asdict(again))
    return {**asdict(cold), **of_again, **found.measures, "peak_memory_mib": peak_memory_mib(DEVICE)}


def facts(arguments: argparse.Namespace) -> dict[str, Any]:
    """What shares of the machine's rate are reckoned with, and what `auto` is here.

    pairs: an epoch's. multiply_adds: of the linear layers, for each token. tokens: max_length -> the mean of a training
    pair, and of a document. flops: precision -> FLOP/s of matrix products.
    """
    encoder, dataset = open_encoder(arguments), load_dataset(arguments.data, "train")
    linear = [m for name, m in encoder.model.named_modules() if isinstance(m, torch.nn.Linear) and "pooler" not in name]
    pairs = [(q, d) for q, judged in dataset.qrels.items() for d, grade in judged.items() if grade > 0]
    queries, positives = [dataset.queries[q] for q, _ in pairs], [dataset.corpus[d] for _, d in pairs]
    documents = [dataset.corpus[doc_id] for doc_id in dataset.corpus.ids[: arguments.documents]]
    tokens = {}
    for length in arguments.lengths:
        encoder = load_encoder(Model(name=arguments.model, max_length=length))
        of_queries, of_positives = encoder.prepare(queries, "query"), encoder.prepare(positives, "document")
        of_documents = encoder.prepare(documents, "document")
        tokens[str(length)] = {
            "pair": sum(item.length for item in (*of_queries, *of_positives)) / len(pairs),
            "document": sum(item.length for item in of_documents) / len(documents),
        }
    auto = resolve_precision("auto", resolve_device())
    return {
        "device": DEVICE,
        "device_name": torch.cuda.get_device_name() if DEVICE == "cuda" else None,
        "threads": torch.get_num_threads(),
        "precision": auto,
        "pairs": len(pairs),
        "multiply_adds": sum(layer.in_features * layer.out_features for layer in linear),
        "tokens": tokens,
        "flops": {precision: _rate(DTYPES[precision]) for precision in dict.fromkeys(("fp32", auto))},
    }


def _rate(dtype: torch.dtype) -> float:
    """FLOP/s of square matrix products, the best of some seconds."""
    size, clock, best = 8192 if DEVICE == "cuda" else 2048, Clock(DEVICE), 0.0
    a, b = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    end = time.perf_counter() + 3
    while time.perf_counter() < end:
        clock.start()
        a @ b
        best = max(best, 2 * size**3 / clock.read().seconds)
    return best


VERBS = {"train": train, "mine": mine, "refresh": refresh, "encode": encode, "evaluate": evaluate, "facts": facts}


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = whole.add_subparsers(dest="verb", required=True)
    for name in VERBS:
        verb = verbs.add_parser(name)
        verb.add_argument("--model", required=True, help="a folder or hub id")
        verb.add_argument("--data", required=True, type=Path, help="a dataset folder")
        verb.add_argument("--max-length", type=int)
        if name in ("encode", "facts"):
            verb.add_argument("--documents", type=int, help="the first so many")
        if name == "facts":
            verb.add_argument("--lengths", type=int, nargs="+", required=True, help="of which tokens are counted")
        if name == "train":
            verb.add_argument("--steps", type=int, default=12)
            verb.add_argument("--skip", type=int, default=2, help="steps that are not measured")
            verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe")
        else:
            verb.add_argument("--precision", choices=["auto", *DTYPES], default="fp32")
    return whole


if __name__ == "__main__":
    given = parser().parse_args()
    print(json.dumps(VERBS[given.verb](given)))
