"""One side of the benchmark in a process of its own: `python tests/gpu/sides.py ours|peer --model DIR --data DIR ...`

Prints a JSON line: batch size -> pairs a second, peak memory in MiB, losses. The versions that it ran with come last.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parents[1]), str(BENCHMARKS.parents[1] / "cli")]


def side_of(name: str, arguments: argparse.Namespace, batch: int) -> dict[str, Any]:
    """LoRA of rank 16 in bf16, gradient caching beyond `whole` pairs: one batch size, after a step."""
    chunk = None if batch <= arguments.whole else arguments.chunk
    common = {"model": arguments.model, "data": Path(arguments.data), "max_length": arguments.tokens,
              "steps": arguments.steps, "skip": 1}  # fmt: skip
    if name == "ours":
        import run_embedtune

        settings = [f"train.batch_size={batch}", "train.precision=bf16", "model.pooling=mean", "model.dropout=off"]
        settings += ["model.lora.rank=16", "model.lora.alpha=32", "model.lora.target_modules=all-linear"]
        settings += [f"train.chunk_size={chunk}"] if chunk else []
        settings += [f"model.attention={arguments.attention}"] if arguments.attention else []
        return run_embedtune.train(argparse.Namespace(**common, set=settings))
    import run_sentence_transformers

    run_sentence_transformers.open_model = opened_with_adapter
    options = {"batch_size": batch, "chunk_size": chunk, "precision": "bf16", "no_dropout": True, "lora": None,
               "attention": arguments.attention, "seed": 42, "record": None}  # fmt: skip
    return run_sentence_transformers.train(argparse.Namespace(**common, **options))


def opened_with_adapter(arguments: argparse.Namespace) -> Any:
    """The peer's model at its best: attention without padding where it can, weights in bf16 below the adapter."""
    import torch
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    on_gpu = torch.cuda.is_available()
    kwargs: dict[str, Any] = {"torch_dtype": torch.bfloat16} if on_gpu else {"torch_dtype": torch.float32}
    if arguments.attention:
        kwargs["attn_implementation"] = arguments.attention
    model = SentenceTransformer(arguments.model, device="cuda" if on_gpu else "cpu", model_kwargs=kwargs)
    model.max_seq_length = arguments.max_length
    model.add_adapter(LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    return model


def mining(arguments: argparse.Namespace) -> dict[str, Any]:
    """Exact search of all queries on the GPU where there is one, and of the first 1,000, scaled, on the CPU."""
    import numpy as np
    import torch

    from embedtune.search.exact import Searcher

    generator = np.random.default_rng(0)
    documents, queries = (
        generator.standard_normal((count, arguments.dimensions), dtype=np.float32)
        for count in (arguments.documents, arguments.queries)
    )

    def seconds(device: str, count: int) -> float:
        searcher = Searcher(documents, device=device)
        started = time.perf_counter()
        searcher.search(queries[:count], 100)
        return time.perf_counter() - started

    few = min(1000, arguments.queries)
    result = {"cpu_seconds_scaled": seconds("cpu", few) * arguments.queries / few}
    if torch.cuda.is_available():
        seconds("cuda", few)
        result["gpu_seconds"] = seconds("cuda", arguments.queries)
        result["times"] = result["cpu_seconds_scaled"] / result["gpu_seconds"]
    return result


def versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "transformers", "sentence-transformers", "peft", "accelerate", "flash-attn", "bitsandbytes"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def main() -> None:
    arguments = parser().parse_args()
    result: dict[str, Any] = {}
    if arguments.side == "mining":
        result["mining"] = mining(arguments)
    for batch in arguments.batches if arguments.side != "mining" else ():
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        ran = side_of(arguments.side, arguments, batch)
        result[str(batch)] = {
            "pairs_per_second": ran["work"] / ran["seconds"],
            "peak_memory_mib": ran["peak_memory_mib"],
            "losses": ran["losses"],
        }
    print(json.dumps({"result": result, "versions": versions()}))


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(description=__doc__)
    whole.add_argument("side", choices=["ours", "peer", "mining"])
    whole.add_argument("--model")
    whole.add_argument("--data")
    whole.add_argument("--batches", type=int, nargs="*", default=[])
    whole.add_argument("--whole", type=int, default=32, help="the largest batch without gradient caching")
    whole.add_argument("--chunk", type=int, default=32, help="of gradient caching")
    whole.add_argument("--tokens", type=int, default=256)
    whole.add_argument("--steps", type=int, default=3)
    whole.add_argument("--attention")
    whole.add_argument("--documents", type=int, default=1_000_000)
    whole.add_argument("--queries", type=int, default=100_000)
    whole.add_argument("--dimensions", type=int, default=384)
    return whole


if __name__ == "__main__":
    main()
