"""This checkout's command line beside that of an earlier commit, in alternation: earlier, this, earlier, this, ...

    python tests/benchmarks/baseline.py prepare ../baseline      (its worktree, with an environment of its own)
    python tests/benchmarks/baseline.py run ../baseline --alternations 3 -- eval MODEL --data data/cranfield --json

Write the command as this checkout spells it. The earlier commit gets its own spelling of it, by RENAMED and DROPPED
below. `{output}` in the command stands for a fresh path for each process. Every process has an empty EMBEDTUNE_CACHE.
The ratios are those of the earlier commit to this one, within an alternation: above 1, this checkout needs less.
What both print is compared line by line, and the first difference is shown. Exit code 1: a command failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measuring import HERE

COMMIT = "cf4f4fe"
ROOT = HERE.parents[1]
# (verb, this checkout's flag) -> the earlier commit's flag; "" where its value stood without one.
RENAMED = {
    ("audit", "--per-query"): "--queries",
    ("data", "--output"): "",  # of `data convert SOURCE DIR`; `data split` had the flag
    ("data", "--source"): "--from",
    ("eval", "--image-folder"): "--images",
    ("judge", "--model"): "--by",
    ("merge", "--alphas"): "--try",
    ("search", "--image-folder"): "--images",
}
DROPPED = {"--trust-remote-code"}  # flags that the earlier commit does not have


@dataclass(frozen=True)
class Outcome:
    """What one process took and printed."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    stdout: list[str]


def main() -> int:
    arguments = parser().parse_args()
    if arguments.verb == "prepare":
        return prepare(arguments.folder, arguments.commit)
    return compare(arguments.folder, arguments.command, arguments.alternations)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)
    prepared = verbs.add_parser("prepare", help="Check out the commit and install it into an environment of its own.")
    prepared.add_argument("folder", type=Path)
    prepared.add_argument("--commit", default=COMMIT)
    ran = verbs.add_parser("run", help="Run one command with both.")
    ran.add_argument("folder", type=Path)
    ran.add_argument("--alternations", type=int, default=1)
    ran.add_argument("command", nargs="+")
    return top


def prepare(folder: Path, commit: str) -> int:
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(folder.resolve()), commit], check=True)
    venv.create(folder / ".venv", with_pip=True)
    pip = [str(folder.resolve() / ".venv/bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", "constraints.txt", "--editable", ".[test]"], cwd=folder, check=True)
    return 0


def earlier_spelling(command: list[str]) -> list[str]:
    """The command in the earlier commit's words."""
    renamed = {flag: former for (verb, flag), former in RENAMED.items() if verb == command[0]}
    if command[:2] == ["data", "split"]:
        del renamed["--output"]
    words = [renamed.get(word, word) for word in command]
    return [word for word in words if word and word not in DROPPED]


def run(python: Path, command: list[str]) -> Outcome:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        words = [word.replace("{output}", f"{folder}/output") for word in command]
        environment = {**os.environ, "EMBEDTUNE_CACHE": f"{folder}/cache"}
        environment.pop("PYTHONPATH", None)
        started = time.perf_counter()
        process = subprocess.Popen([python, "-P", "-m", "embedtune_cli", *words], stdout=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        if process.returncode not in (0, 1):
            raise SystemExit(f"{python}: exit code {process.returncode}: embedtune {' '.join(words)}")
        output.seek(0)
        peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        return Outcome(wall, usage.ru_utime + usage.ru_stime, peak, output.read().splitlines())


def compare(folder: Path, command: list[str], alternations: int) -> int:
    pairs = []
    for number in range(1, alternations + 1):
        earlier = run(folder.resolve() / ".venv/bin/python", earlier_spelling(command))
        this = run(Path(sys.executable), command)
        pairs.append((earlier, this))
        print(f"{number}: earlier {_figures(earlier)}; this {_figures(this)}")
    for name in ("wall_seconds", "cpu_seconds", "peak_mib"):
        ratios = sorted(getattr(earlier, name) / getattr(this, name) for earlier, this in pairs)
        print(f"{name}: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    earlier, this = pairs[-1]
    lines = zip(earlier.stdout, this.stdout, strict=False)
    different = next(((old, new) for old, new in lines if old != new), None)
    print("printed lines are equal" if earlier.stdout == this.stdout else f"first lines that differ: {different}")
    return 0


def _figures(outcome: Outcome) -> str:
    return f"{outcome.wall_seconds:.1f} s, {outcome.cpu_seconds:.1f} CPU s, {outcome.peak_mib:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
