"""The device and the precision that `auto` means on this machine."""

from __future__ import annotations

import re
from typing import Literal

import torch

from .. import distributed
from ..errors import InputError, unknown
from ..recipe import Precision

Resolved = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str = "auto") -> torch.device:
    """The torch device of a name; `auto` is an accelerator if there is one, and each process has a GPU of its own.

    Raises InputError for an unknown name and for a device that this machine does not have.
    """
    if device == "auto" and distributed.count() > 1 and torch.cuda.is_available():
        return torch.device("cuda", distributed.local_rank() % torch.cuda.device_count())
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu")
    kind = device.partition(":")[0]
    if not re.fullmatch(r"(cpu|cuda|mps)(:\d{1,4})?", device):
        raise InputError(unknown("device", device, ["auto", "cpu", "cuda", "cuda:0", "mps"]))
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}[kind]
    if not available:
        raise InputError(f"device {device!r} is not available here; `embedtune doctor` lists the devices")
    if kind == "cuda" and ":" in device and int(device.partition(":")[2]) >= torch.cuda.device_count():
        raise InputError(f"device {device!r} is not available here: there are {torch.cuda.device_count()} CUDA devices")
    return torch.device(device)


def resolve_precision(precision: Precision, device: torch.device) -> Resolved:
    """`auto` is bf16 where the hardware multiplies it natively; emulated bf16 is several times slower than fp32. Raises
    InputError for fp16 on a CPU."""
    if precision == "fp16" and device.type == "cpu":
        raise InputError("precision fp16 needs a GPU; on a CPU use fp32, or bf16 where the processor has it")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 (AVX-512 BF16 or AMX) and oneDNN may use that: ONEDNN_MAX_CPU_ISA may not
    allow it."""
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return bool(native and torch.ops.mkldnn._is_mkldnn_bf16_supported())
