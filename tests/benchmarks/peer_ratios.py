"""From raw numbers of every alternation to ratios with their spread, and to the tables that show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from peer_tasks import Comparison, Task

Run = dict[str, Any]
"""What one process gave; {"failed": reason} where it gave nothing."""
Runs = dict[str, list[Run]]
"""variant -> a run for each alternation."""

RATIOS = ["task", "compared", "ratio", "lowest", "highest", "CPU ratio", "memory ratio", "loss apart"]
VARIANTS = ["task", "variant", "runs", "work/s", "wall s", "CPU s", "peak MiB", "rate share", "other load"]


@dataclass(frozen=True)
class Spread:
    """The median of some alternations' ratios, the lowest, and the highest."""

    median: float
    lowest: float
    highest: float


def spread(ratios: Sequence[float]) -> Spread | None:
    return Spread(median(ratios), min(ratios), max(ratios)) if ratios else None


def ratios(comparison: Comparison, runs: Runs, value: str) -> list[float]:
    """For each alternation in which both ended: the other's time for a unit of work, divided by ours.

    value: `seconds` or `cpu_seconds`; of ours the second time's where the comparison says so.
    """
    ours_value = comparison.value.removesuffix("seconds") + value
    return [
        (other[value] / other.get("work", 1)) / (ours[ours_value] / ours.get("work", 1))
        for ours, other in _both(comparison, runs)
    ]


def loss_apart(comparison: Comparison, runs: Runs) -> float | None:
    """The largest difference between two losses of the same step and batch; None where there are none."""
    apart = [
        abs(a - b)
        for ours, other in _both(comparison, runs)
        for a, b in zip(ours.get("losses", []), other.get("losses", []), strict=False)
    ]
    return max(apart, default=None)


def _both(comparison: Comparison, runs: Runs) -> list[tuple[Run, Run]]:
    pairs = zip(runs.get(comparison.ours, []), runs.get(comparison.other, []), strict=False)
    return [(ours, other) for ours, other in pairs if "failed" not in ours and "failed" not in other]


def share(task: Task, run: Run, precision: str, facts: dict[str, Any]) -> float | None:
    """The share of the measured rate of matrix products: the FLOP of the linear layers for the tokens, without padding,
    attention, and what is computed twice to save memory."""
    if task.work is None:
        return None
    tokens = facts["tokens"][str(task.max_length)][task.work]
    flop = 2 * facts["multiply_adds"] * tokens * task.passes
    return float(run["work"] / run["seconds"] * flop / facts["flops"][precision])


def summary(task: Task, runs: Runs) -> list[dict[str, Any]]:
    """Each comparison of a task, as it goes into the JSON file."""
    replayed = {variant.name: variant.replays for variant in task.variants}
    found = []
    for comparison in task.comparisons:
        by_wall, by_cpu = (ratios(comparison, runs, value) for value in ("seconds", "cpu_seconds"))
        measured = [both for both in _both(comparison, runs) if all("peak_memory_mib" in run for run in both)]
        memory = [other["peak_memory_mib"] / ours["peak_memory_mib"] for ours, other in measured]
        same_batches = replayed[comparison.ours] == comparison.other
        found.append(
            {
                "compared": comparison.title,
                "ratios": by_wall,
                "seconds": vars(wall) if (wall := spread(by_wall)) else None,
                "cpu_seconds": vars(cpu) if (cpu := spread(by_cpu)) else None,
                "memory": median(memory) if memory and comparison.ours != comparison.other else None,
                "loss_apart": loss_apart(comparison, runs) if same_batches else None,
            }
        )
    return found


def ratio_rows(task: Task, runs: Runs) -> list[list[object]]:
    """Rows of the table RATIOS: above 1 is in our favour."""
    rows: list[list[object]] = []
    for found in summary(task, runs):
        wall, cpu = found["seconds"] or {}, found["cpu_seconds"] or {}
        values = [wall.get("median"), wall.get("lowest"), wall.get("highest"), cpu.get("median"), found["memory"]]
        rows.append([task.name, found["compared"], *values, found["loss_apart"]])
    return rows


def variant_rows(task: Task, runs: Runs, facts: dict[str, Any]) -> list[list[object]]:
    """Rows of the table VARIANTS: medians over the alternations that ended."""
    rows: list[list[object]] = []
    for variant in task.variants:
        ended = [run for run in runs.get(variant.name, []) if "failed" not in run]
        shares = [share(task, run, variant.precision, facts) for run in ended]
        rows.append(
            [
                task.name,
                variant.name,
                len(ended),
                _median([run["work"] / run["seconds"] for run in ended if "work" in run]),
                *(
                    _median([run[name] for run in ended if name in run])
                    for name in ("seconds", "cpu_seconds", "peak_memory_mib")
                ),
                _median([found for found in shares if found is not None]),
                _median([run["other_load"] for run in ended if "other_load" in run]),
            ]
        )
    return rows


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
