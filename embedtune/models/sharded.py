"""Weights shared out over processes (FSDP2: torch's `fully_shard`), to train all of what one device cannot hold.

Each process keeps its rows of every weight, of its gradient and of the optimizer's state. A pass gathers one layer's
weights at a time, and the backward pass sums each layer's gradient over the processes. All of that is collective, so
every process makes the same passes: one that has fewer chunks encodes a filler. To encode by itself (validation,
mining) a process takes the whole weights for that time, which need no more memory than encoding without training.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from .. import distributed
from ..errors import InputError
from .encoder import Encoder
from .modules import image_processors_of
from .precision import DTYPES

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Result = TypeVar("Result")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class ShardedEncoder(Encoder):
    """The trained encoder with its weights shared out. It trains; `whole` gives the encoder that encodes."""

    sharded = True

    def __init__(self, encoder: Encoder) -> None:
        """Shares out the encoder's own weights, in place. Raises InputError where `refuse_model` does."""
        refuse_model(encoder)
        whole = copy.copy(encoder)
        whole.model = without_weights(encoder.model)
        model = shard(encoder.model, encoder.device)
        super().__init__(
            model,
            encoder.name,
            encoder.precision,
            cached=False,
            passages=encoder.passages,
            chunk_tokens=encoder.chunk_tokens.asked,
        )
        self._whole = whole

    @contextmanager
    def whole(self) -> Iterator[Encoder]:
        encoder = self.gathered()
        try:
            yield encoder
        finally:
            for weight in encoder.model.parameters():
                weight.data = weight.data.new_empty(0)

    @torch.no_grad()
    def gathered(self) -> Encoder:
        """The encoder with the whole weights as they are now. Every process must ask at once."""
        weights = list(self._whole.model.parameters())
        for weight, sharded in zip(weights, self.model.parameters(), strict=True):
            weight.data = whole_tensor(sharded)
            weight.requires_grad_(sharded.requires_grad)
        torch.autograd.graph.increment_version(weights)  # cached embeddings are named by the counted version
        return self._whole

    def in_step(self, parts: list[list[int]]) -> list[list[int]]:
        most = torch.tensor(len(parts), device=self.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return [*parts, *([] for _ in range(int(most) - len(parts)))]

    def attempt(self, call: Callable[[], Result]) -> Result | None:
        result = super().attempt(call)
        if result is None:
            raise InputError(
                f"{self.where}: out of memory on {distributed.host()}; processes that share their weights take chunks "
                "together, so none halves its own: lower train.chunk_size or model.chunk_tokens"
            )
        return result

    def autocast(self) -> AbstractContextManager[Any]:
        # Each pass uses a weight once, and what autocast keeps would be all weights of the model.
        dtype = DTYPES[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32", cache_enabled=False)

    @contextmanager
    def _while_training(self) -> Iterator[None]:
        yield

    def lowered_once(self) -> AbstractContextManager[None]:
        return nullcontext()  # a lowered copy would be of this process's rows alone

    @contextmanager
    def without_graph(self) -> Iterator[None]:
        with torch.no_grad(), self.autocast():  # packed weights would stay when a layer's weights go
            yield


def refuse_model(encoder: Encoder) -> None:
    """Raises InputError for a model whose passes differ from process to process, or whose weights do."""
    model, why = encoder.model, None
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    if image_processors_of(model):
        why = "it reads texts and images, and a process with texts alone would leave out layers that others gather"
    elif any((getattr(config, name, None) or 0) > 1 for config in configs for name in EXPERTS):
        why = "it has experts, which not every process uses at each pass"
    elif len(dtypes := {weight.dtype for weight in model.parameters()}) > 1:
        why = f"its weights have several types ({', '.join(sorted(str(one) for one in dtypes))})"
    if why is not None:
        raise InputError(f"train.shard: {encoder.name} cannot be shared out: {why}; train it with train.shard: false")


def without_weights(model: SentenceTransformer) -> SentenceTransformer:
    """A copy of the model whose parameters are empty; buffers are copied."""
    empty: dict[int, Any] = {id(weight): nn.Parameter(weight.data.new_empty(0), False) for weight in model.parameters()}
    return copy.deepcopy(model, empty)


def shard(model: SentenceTransformer, device: torch.device) -> SentenceTransformer:
    """Shares out the model's weights over all processes, in place: repeated layers one by one, the rest together."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in [*layers_of(model), model]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # a batch's gradient is the sum over its shares
            part.set_force_sum_reduction_for_comms(True)
    return model


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The repeated layers: what the outermost lists of modules hold."""
    layers: list[nn.Module] = []
    for child in model.children():
        layers += list(child) if isinstance(child, nn.ModuleList) else layers_of(child)
    return layers


def whole_tensor(values: Tensor) -> Tensor:
    """All rows of a tensor that is shared out, which every process must ask for at once; another tensor as it is."""
    return values.full_tensor() if isinstance(values, DTensor) else values


def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The tensors on the CPU with all their rows, gathered one by one; nothing in processes that do not keep them."""
    kept: dict[str, Tensor] = {}
    for name, values in tensors.items():
        rows = whole_tensor(values.detach())
        if keep:
            kept[name] = rows.cpu()
    return kept


def as_shared(values: Tensor, like: Tensor) -> Tensor:
    """The values; where `like` is shared out, this process's rows of them."""
    if not isinstance(like, DTensor) or values.shape != like.shape:
        return values
    return distribute_tensor(values.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def clip_gradients(weights: Sequence[nn.Parameter], largest: float) -> Tensor:
    """Scales .grad so that the norm of all is at most `largest`; returns the norm before, on the device."""
    shared = [weight for weight in weights if isinstance(weight, DTensor)]
    if not shared:
        return nn.utils.clip_grad_norm_(weights, largest)
    kinds: list[list[Any]] = [shared, [weight for weight in weights if not isinstance(weight, DTensor)]]
    gradients = [[weight.grad for weight in kind if weight.grad is not None] for kind in kinds]
    norms = [whole_tensor(nn.utils.get_total_norm(of_kind)) for of_kind in gradients if of_kind]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, largest, norm)
    return norm


def asked_by_accelerate() -> bool:
    """Whether `accelerate launch` asks for FSDP. Raises InputError for what of it is not supported here."""
    if not _is_true("ACCELERATE_USE_FSDP"):
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise InputError(f"launched as FSDP version {version}: only version 2 is supported; set fsdp_version: 2")
    for variable, key, instead in (
        ("FSDP_OFFLOAD_PARAMS", "fsdp_offload_params", "more processes hold more"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "fsdp_activation_checkpointing", "set model.gradient_checkpointing: true"),
    ):
        if _is_true(variable):
            raise InputError(f"launched with {key}: true, which is not supported; set it to false, and {instead}")
    return True


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
