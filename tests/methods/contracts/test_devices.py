"""State whose size is known only when it was saved is made anew on the module's own device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from embedtune import methods

SIZED = {
    ("filtering", "cluster"): {"centroids": (3, 4)},
    ("filtering", "rrra"): {"weights": (7,), "moments": (2, 7)},
    ("weighting", "rrra_weight"): {"adapter.weights": (7,), "adapter.moments": (2, 7)},
    ("loss", "ncu"): {"opposite": (4, 4), "moments": (2, 4, 4)},
    ("loss", "ahnpl"): {"threshold_number": ()},
    ("synthesis", "memory_queue"): {"embeddings": (4096, 4)},
}


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
@pytest.mark.parametrize(("family", "name"), SIZED)
def test_a_loaded_state_stays_on_the_device_of_its_module(family: str, name: str) -> None:
    module: nn.Module = methods.bind(family, name, {})
    shapes = SIZED[family, name]
    state = {**module.state_dict(), **{key: torch.ones(shape) for key, shape in shapes.items()}}
    module.to("meta").load_state_dict(state)
    loaded = module.state_dict()
    assert {key: tuple(loaded[key].shape) for key in shapes} == shapes
    assert {key: value.device.type for key, value in loaded.items()} == dict.fromkeys(loaded, "meta")
