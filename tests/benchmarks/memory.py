"""Peak memory of a run as `train --dry-run` foretells it, and as it is measured: one row a case, as a Markdown table.

    python tests/benchmarks/memory.py --minilm FOLDER --decoder FOLDER --data DIR [CASE ...]

Each case is a dry run and a run of two steps, each a process of its own, from an empty cache. Measured is the most that
the run's process held from its start to its end; on a GPU, the most of the GPU's memory that its tensors took.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import peak_memory_mib

LORA = "model.lora={rank: 8}"
CASES = {  # name -> which model, and the changes of the recipe
    "MiniLM, full, fp32, batch 32": ("minilm", ["precision=fp32", "batch_size=32"]),
    "MiniLM, full, fp32, batch 32 in chunks": ("minilm", ["precision=fp32", "batch_size=32", "chunk_size=4"]),
    "MiniLM, full, bf16, batch 32": ("minilm", ["precision=bf16", "batch_size=32"]),
    "MiniLM, LoRA, fp32, batch 32 in chunks": ("minilm", [LORA, "precision=fp32", "batch_size=32", "chunk_size=4"]),
    "MiniLM, LoRA, bf16, batch 64": ("minilm", [LORA, "precision=bf16", "batch_size=64"]),
    "SmolLM2, LoRA, bf16, batch 8": ("decoder", [LORA, "precision=bf16", "batch_size=8"]),
    "SmolLM2, LoRA, bf16, batch 8 in chunks": ("decoder", [LORA, "precision=bf16", "batch_size=8", "chunk_size=2"]),
    "SmolLM2, LoRA, fp32, batch 8": ("decoder", [LORA, "precision=fp32", "batch_size=8"]),
    "SmolLM2, full, fp32, batch 4 in chunks": ("decoder", ["precision=fp32", "batch_size=4", "chunk_size=2"]),
    "SmolLM2, LoRA, 4bit, batch 8 in chunks": (
        "decoder",
        [LORA, "model.dtype=4bit", "precision=bf16", "batch_size=8", "chunk_size=2"],
    ),
}
UNITS = {"GiB": 1024.0, "MiB": 1.0}


def recipe_of(model: Path, data: Path, folder: Path, *, decoder: bool) -> Path:
    block = {"name": str(model), "max_length": 64, **({"pooling": "lasttoken"} if decoder else {})}
    recipe = {
        "version": 1,
        "model": block,
        "data": {"train": str(data)},
        "train": {"max_steps": 2},
        "evaluate": {"bm25": False},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return path


def changes_of(settings: list[str]) -> list[str]:
    """The flags of a command line."""
    keys = [setting if setting.startswith("model.") else f"train.{setting}" for setting in settings]
    return [word for key in keys for word in ("--set", key)]


def foretold(recipe: Path, changes: list[str]) -> float:
    """MiB by the dry run, the largest number of its line about memory: a GPU's comes first."""
    command = [sys.executable, "-m", "embedtune_cli", "train", str(recipe), "--dry-run", *changes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = re.search(r"^ +memory  at most ([\d.]+) (GiB|MiB)", done.stderr, re.MULTILINE)
    if done.returncode or line is None:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return float(line[1]) * UNITS[line[2]]


def measured(recipe: Path, changes: list[str]) -> float:
    """MiB of a run in a process of its own."""
    command = [sys.executable, __file__, "--run", str(recipe), *changes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return float(done.stdout.split()[-1])


def run_here(recipe: Path, changes: list[str]) -> None:
    from embedtune_cli.app import run

    code = run(["train", str(recipe), "--output", str(recipe.parent / "run"), *changes])
    import torch

    print(peak_memory_mib("cuda" if torch.cuda.is_available() else "cpu"))
    sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=Path)
    parser.add_argument("--decoder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("cases", nargs="*", help="parts of the names of cases; absent: all")
    given = parser.parse_args()
    print("| run | foretold, MiB | measured, MiB | foretold / measured |\n|---|---|---|---|")
    for name, (which, settings) in CASES.items():
        model = getattr(given, which)
        if model is None or (given.cases and not any(part in name for part in given.cases)):
            continue
        changes = changes_of(settings)
        with tempfile.TemporaryDirectory() as folder:
            recipe = recipe_of(model, given.data, Path(folder), decoder=which == "decoder")
            os.environ["EMBEDTUNE_CACHE"] = f"{folder}/cache"
            expected, most = foretold(recipe, changes), measured(recipe, changes)
        print(f"| {name} | {expected:,.0f} | {most:,.0f} | {expected / most:.2f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run_here(Path(sys.argv[2]), sys.argv[3:])
    main()
