"""Trains by a recipe's defaults for some steps and says how fast that was: a benchmark, not a test.

    python tests/benchmarks/training.py --model MODEL --data DIR --steps 12 [--batch-size 32] [--chunk-size 16]
        [--batches FILE]  a JSON file with "batches", lists of [query_id, doc_id]: another trainer's, to be replayed
        [--set KEY=VALUE ...]

Prints a JSON line: pairs/s (of the median step, the first two left out), the losses, and the peak memory. To compare
with another trainer, alternate the two in one run on the same batches, and compare medians as a ratio.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
from pathlib import Path

from embedtune.recipe import Recipe, check_recipe
from embedtune.strict_yaml import parse


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        from embedtune.train.run import train

        train(recipe_of(arguments), Path(folder) / "run")
        events = [json.loads(line) for line in (Path(folder) / "run" / "log.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    print(
        json.dumps(
            {
                "pairs_per_second": statistics.median(step["pairs_per_second"] for step in steps[2:] or steps),
                "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "cpu_seconds": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
                "losses": [step["loss"] for step in steps],
            }
        )
    )


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--chunk-size", type=int)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batches", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a train key, e.g. clip=1.0")
    return parser.parse_args()


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    changes = dict(change.split("=", 1) for change in arguments.set)
    return check_recipe(
        {
            "version": 1,
            "model": {"name": arguments.model, "max_length": arguments.max_length},
            "data": {"train": arguments.data, "split": "train"},
            "batching": {"name": "replay", "path": str(arguments.batches)} if arguments.batches else {"name": "unique"},
            "train": {
                "batch_size": arguments.batch_size,
                "chunk_size": arguments.chunk_size,
                "max_steps": arguments.steps,
                "epochs": 100,
                "checkpoint_every": 10**6,
                **{key: parse(value, key) for key, value in changes.items()},
            },
        }
    )


if __name__ == "__main__":
    main()
