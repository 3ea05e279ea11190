"""A text model as an ONNX graph, from token ids to the embedding, written by torch and run by onnxruntime."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, reason
from ..models.encoder import Encoder
from ..models.modules import modules_of, transformers_of

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# sentence-transformers pools the first itself; text-embeddings-inference takes the second where it is there.
OUTPUTS = ("last_hidden_state", "sentence_embedding")
GRAPH, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"  # as the hub's models name them
LARGEST = 2**30  # bytes of weights in the graph's own file, which cannot have 2 GiB


def refuse_absent_packages() -> None:
    """Raises InputError without the packages that write and run a graph."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise InputError(f"--format onnx: needs {', '.join(absent)}; try: pip install 'embedtune[onnx]'")


def write_graph(encoder: Encoder, folder: Path) -> Path:
    """Writes onnx/model.onnx into a model folder: any number of texts of any length at once.

    Raises InputError for a model that is no graph from token ids to one embedding, and where torch cannot export it.
    """
    _refuse_other(encoder)
    model, file = encoder.model, folder / GRAPH
    file.parent.mkdir()
    features = {
        name: value
        for name, value in model.preprocess(["one text", "another text that is longer than it"]).items()
        if isinstance(value, Tensor)
    }
    names = [name for name in INPUTS if name in features]
    dimensions = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=encoder.max_length or 2**20)}
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Graph(model, names).eval(),
                tuple(features[name].to(encoder.device) for name in names),
                str(file),
                input_names=names,
                output_names=list(OUTPUTS),
                dynamic_shapes=(tuple(dimensions for _ in names),),
                dynamo=True,
                external_data=size > LARGEST,
                verbose=False,
            )
    except Exception as error:  # each architecture that torch cannot export fails in its own way
        raise InputError(f"--format onnx: torch cannot export {encoder.name}: {reason(error)[:300]}") from error
    return file


def quantize(file: Path, folder: Path) -> Path:
    """Writes onnx/model_quantized.onnx: the graph with weights in int8, whose activations are quantized as it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises on the root logger
    quantize_dynamic(str(file), str(folder / QUANTIZED), weight_type=QuantType.QInt8, per_channel=True)
    return folder / QUANTIZED


def run_by_onnx(encoder: Encoder, file: Path) -> Encoder:
    """The encoder with its embeddings computed by the graph, on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def forward(features: Mapping[str, Tensor], **_: Any) -> dict[str, Tensor]:
        inputs = {name: features[name].cpu().numpy() for name in names}
        return {"sentence_embedding": torch.from_numpy(session.run(["sentence_embedding"], inputs)[0])}

    same, model = copy.copy(encoder), copy.copy(encoder.model)
    model.forward = forward
    same.model, same.cached = model, False
    return same


class _Graph(nn.Module):
    """The model as a function of tensors alone."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) each. Returns (B, T, H) of the tokens and (B, D) of the texts, cut to the model's truncate_dim."""
        outputs = self.model(dict(zip(self.names, inputs, strict=True)))
        return outputs["token_embeddings"], outputs["sentence_embedding"][:, : self.model.truncate_dim]


def _refuse_other(encoder: Encoder) -> None:
    problem = ""
    if set(transformers_of(encoder.model)) != {""}:
        problem = "has no transformer, or one for each role"
    elif encoder.model.supports("image"):
        problem = "reads images"
    elif any(not getattr(module, "include_prompt", True) for module in modules_of(encoder.model)):
        problem = "leaves its prompt out of the pooling, which a graph cannot tell from the text"
    if problem:
        raise InputError(f"--format onnx: {encoder.name} {problem}; expected one text model")
