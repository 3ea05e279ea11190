"""What benchmarks share: a process of its own for each measurement, its clocks, its peak memory, the machine's load."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VERSIONS = ("embedtune", "sentence-transformers", "transformers", "torch", "faiss-cpu", "numpy")


@dataclass
class Timing:
    """What a piece of work took: wall seconds, and CPU seconds (user and system) of this process."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass
class Clock:
    """Wall and CPU time of this process; work that a GPU still has in hand is waited for before it is read."""

    device: str = "cpu"
    started: tuple[float, float] = field(default=(0.0, 0.0))

    def start(self) -> None:
        self.started = self._now()

    def read(self) -> Timing:
        wall, cpu = self._now()
        return Timing(wall - self.started[0], cpu - self.started[1])

    def _now(self) -> tuple[float, float]:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


@contextlib.contextmanager
def timed(device: str = "cpu") -> Iterator[Timing]:
    """Gives a Timing that is filled at the end of the block."""
    clock, timing = Clock(device), Timing()
    clock.start()
    yield timing
    found = clock.read()
    timing.seconds, timing.cpu_seconds = found.seconds, found.cpu_seconds


def peak_memory_mib(device: str = "cpu") -> float:
    """The most memory that this process has held so far: on a GPU the tensors', else all of it."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count what the process that started this one held then
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:") / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def held_mib() -> float:
    """What this process holds now; `peak_memory_mib` counts from here on, where the system can forget a peak."""
    Path("/proc/self/clear_refs").write_text("5")
    return (
        next(
            int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmRSS:"
        )
        / 2**10
    )


class Failed(Exception):
    """A measurement that ended with an error, or was stopped; the last line that it said."""


def measure(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, limit: float = 0
) -> dict[str, Any]:
    """Runs a command in a process of its own: what it printed as JSON, if it did, and what the process took.

    limit: seconds after which it is stopped; 0: never. Raises Failed.
    """
    others, started = _cpu_of_machine(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, env={**os.environ, **(environment or {})})
        stop = threading.Timer(limit, process.kill) if limit else None
        if stop is not None:
            stop.start()
        try:
            _, status, used = os.wait4(process.pid, 0)  # waits as subprocess does, and says what was used
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:  # an interrupted benchmark leaves nothing running
            process.kill()
            process.wait()
            raise
        finally:
            if stop is not None:
                stop.cancel()
        wall, cpu = time.perf_counter() - started, used.ru_utime + used.ru_stime
        output.seek(0), errors.seek(0)
        said, complaint = output.read(), errors.read().strip().splitlines()
    if process.returncode:
        stopped = f"stopped after {limit:.0f} s" if limit and wall >= limit else f"exit code {process.returncode}"
        raise Failed(complaint[-1] if complaint else stopped)
    whole = {"process_seconds": wall, "process_cpu_seconds": cpu}
    if others is not None and (machine := _cpu_of_machine()) is not None:
        whole["other_load"] = max(0.0, (machine - others - cpu) / wall)  # CPU seconds of others in a second
    return {**_json_of(said), **whole}


def _json_of(output: str) -> dict[str, Any]:
    last = (output.strip().splitlines() or [""])[-1]
    found: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
    return found


def _cpu_of_machine() -> float | None:
    """CPU seconds that all processes of this machine have used, where the system says so."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # faiss-cpu, where a GPU's was installed
        return None


def environment() -> dict[str, Any]:
    """The machine and the versions that figures were taken with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads_set": os.environ.get("OMP_NUM_THREADS"),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONS},
        "commit": found.stdout.strip() or None,
        "load_average": list(os.getloadavg()),
    }
