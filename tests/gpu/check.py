"""The whole check of a machine with a GPU, in at most eight minutes, without a network.

    python tests/gpu/check.py --json gpu.json
    python tests/gpu/check.py --tiny              (on a CPU too: every part, in small)

Checks first: results equal to the CPU's, attention, precisions, resuming, memory that runs out, waits. Then the
benchmark: LoRA in bf16 on MiniLM's shape and on Qwen3's of 0.6 billion parameters, random weights, 256 tokens, batches
of 32, 512 and 2,048, against sentence-transformers with flash attention where it is installed, each side a process of
its own, in two alternations; then exact search. What does not fit into --minutes is left out and named. Exit code 1: a
check failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "benchmarks"), str(HERE.parents[1]),
                str(HERE.parents[1] / "cli")]  # fmt: skip

import torch  # noqa: E402
from checks import CHECKS, Machine, outcome_of  # noqa: E402
from made import FULL, TINY, Sizes, write_data, write_model  # noqa: E402
from measuring import Failed, environment, measure  # noqa: E402
from sides import versions  # noqa: E402

BATCHES = {"minilm": [32, 512, 2048], "qwen3": [32, 512, 2048]}


def main() -> int:
    arguments = parser().parse_args()
    arguments.started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.tiny:
        print("skipped: torch sees no GPU here; --tiny runs every part on the CPU, in small")
        return 0
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, tiny sizes"
    result: dict[str, Any] = {"device": name, "versions": versions(), "environment": environment()}
    print(f"{name}; " + ", ".join(f"{package} {number}" for package, number in versions().items()))
    with tempfile.TemporaryDirectory() as folder:
        result["checks"] = run_checks(arguments, device, Path(folder))
        if not arguments.checks_only:
            result["benchmark"] = run_benchmark(arguments, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    return int(any(check["outcome"] == "failed" for check in result["checks"].values()))


def run_checks(arguments: argparse.Namespace, device: str, folder: Path) -> dict[str, dict[str, Any]]:
    torch.backends.cuda.matmul.allow_tf32 = False
    machine = Machine(
        device=device,
        folder=folder,
        model=write_model(folder / "checked", "minilm", TINY),
        data=write_data(folder / "checked-data", TINY),
        tokens=TINY.tokens,
    )
    outcomes = {}
    for name in arguments.only or CHECKS:
        started = time.monotonic()
        outcome, note = outcome_of(name, machine)
        seconds = time.monotonic() - started
        outcomes[name] = {"outcome": outcome, "note": note, "seconds": seconds}
        print(f"{name:22} {outcome:8} {seconds:6.1f} s  {note}", flush=True)
    return outcomes


def run_benchmark(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    sizes: Sizes = TINY if arguments.tiny else FULL
    data = write_data(folder / "data", sizes)
    small = ["--tokens", str(sizes.tokens), "--steps", "3"]
    runs: dict[str, dict[str, list[Any]]] = {}
    flash = ["--attention", "flash_attention_2"] if torch.cuda.is_available() and find_spec("flash_attn") else []
    for name, batches in BATCHES.items():
        model = write_model(folder / name, name, sizes)
        whole, chunk, sized = (4, 4, [4, 16]) if arguments.tiny else (32, 32, batches)
        given = ["--model", str(model), "--data", str(data), *small, "--whole", str(whole), "--chunk", str(chunk),
                 "--batches", *map(str, sized), *flash]  # fmt: skip
        for _ in range(arguments.alternations):
            for side in ("peer", "ours"):
                runs.setdefault(name, {}).setdefault(side, []).append(run_side(arguments, folder, [side, *given]))
        show(name, runs[name], sized)
    searched = ["--documents", "2000", "--queries", "200"] if arguments.tiny else []
    runs["mining"] = {"ours": [run_side(arguments, folder, ["mining", *searched])]}
    print(f"mining: {runs['mining']['ours'][0]}")
    return runs


def run_side(arguments: argparse.Namespace, folder: Path, given: list[str]) -> Any:
    """What a process of its own printed; a sentence where it failed or where no time is left."""
    remaining = arguments.minutes * 60 - (time.monotonic() - arguments.started)
    if remaining < 20:
        return "left out: no time is left (--minutes)"
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        around = {"EMBEDTUNE_CACHE": cache, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        try:
            return measure([sys.executable, str(HERE / "sides.py"), *given], environment=around, limit=remaining)[
                "result"
            ]
        except Failed as failure:
            return f"failed: {failure}"


def show(name: str, sides: dict[str, list[Any]], batches: list[int]) -> None:
    """A row for each batch size: medians of both sides, and the median ratios within an alternation."""
    for batch in map(str, batches):
        pairs = [
            (ours[batch], peer[batch])
            for ours, peer in zip(sides["ours"], sides["peer"], strict=True)
            if isinstance(ours, dict) and isinstance(peer, dict)
        ]
        if not pairs:
            print(
                f"{name} batch {batch}: "
                + "; ".join({str(run) for run in (*sides["ours"], *sides["peer"]) if isinstance(run, str)})
            )
            continue
        speed, memory = (
            median(ours[key] / peer[key] for ours, peer in pairs) for key in ("pairs_per_second", "peak_memory_mib")
        )
        print(
            f"{name} batch {batch}: {median(ours['pairs_per_second'] for ours, _ in pairs):.1f} pairs/s, "
            f"{speed:.2f} of the peer's; {median(ours['peak_memory_mib'] for ours, _ in pairs):.0f} MiB, "
            f"{memory:.2f} of the peer's",
            flush=True,
        )


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole.add_argument("--tiny", action="store_true", help="small sizes, on a CPU where there is no GPU")
    whole.add_argument("--only", nargs="+", choices=list(CHECKS), help="these checks")
    whole.add_argument("--checks-only", action="store_true", help="no benchmark")
    whole.add_argument("--alternations", type=int, default=2)
    whole.add_argument("--minutes", type=float, default=8.0)
    whole.add_argument("--json", type=Path, help="every number")
    return whole


if __name__ == "__main__":
    sys.exit(main())
