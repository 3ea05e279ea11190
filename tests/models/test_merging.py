"""A merged model is the base with its adapter, or the run and the export end in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result

from embedtune.errors import InputError
from embedtune.models import adapters, merging
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Lora, Recipe, check_recipe
from embedtune.train.mix import Mixtures
from embedtune.train.run import train
from embedtune.types import Item

ITEMS = [Item(id=str(i), text=text) for i, text in enumerate(["the old river", "bread is new 3", "winter"])]


@pytest.fixture(scope="module")
def half(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT in bfloat16."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("half") / "bfloat16"
    SentenceTransformer(str(tiny_model), device="cpu").bfloat16().save_pretrained(str(folder), create_model_card=False)
    return folder


def write_adapter(base: Path, folder: Path, *, size: float, **options: Any) -> Path:
    """An adapter whose B is drawn at random, of this standard deviation."""
    encoder = load_encoder(str(base))
    torch.manual_seed(0)
    adapters.attach(encoder.model, Lora(rank=2, **options), str(base))
    with torch.no_grad():
        for name, parameter in encoder.model.named_parameters():
            if adapters.is_second(name):
                parameter.normal_(std=size)
    adapters.save_adapter(encoder.model, folder)
    return folder


def test_an_adapter_folder_is_exported_as_its_base_with_the_adapter(
    half: Path, tmp_path: Path, run_cli: Callable[..., Result]
) -> None:
    adapter = write_adapter(half, tmp_path / "adapter", size=0.1)
    result = run_cli("export", adapter, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    apart = load_encoder(str(adapter), merged=False)
    assert adapters.adapted(apart.model)
    ours, expected = load_encoder(str(tmp_path / "out")).encode(ITEMS, "query"), apart.encode(ITEMS, "query")
    assert merging.distance(ours, expected) < merging.UNITS * torch.finfo(torch.bfloat16).eps
    assert not np.array_equal(ours, load_encoder(str(half)).encode(ITEMS, "query"))


def test_a_merge_that_loses_the_adapter_is_not_written(
    tiny_model: Path, tmp_path: Path, run_cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(tiny_model, tmp_path / "adapter", size=0.1)

    def unload(model: Any) -> None:
        for part in adapters.adapted(model).values():
            part.model = part.model.unload()

    monkeypatch.setattr(adapters, "merge", unload)
    result = run_cli("export", adapter, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "the merged model's embeddings are not those of its base with the adapter: they moved by" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_rounding_loses_is_refused_and_written_in_float32(
    half: Path, tmp_path: Path, run_cli: Callable[..., Result]
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(half), device="cpu")
    with torch.no_grad():  # weights of one size, so that a small difference is below the rounding of each
        for layer in model[0].model.encoder.layer:
            layer.attention.self.query.weight.copy_(layer.attention.self.query.weight.sign() / 2)
    model.save_pretrained(str(tmp_path / "base"), create_model_card=False)
    adapter = write_adapter(tmp_path / "base", tmp_path / "adapter", size=1e-5, target_modules=["query"])
    result = run_cli("export", adapter, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "rounding to bfloat16 loses the adapter: the merged model's embeddings are the base's, to the bit; write it "
        "with --dtype float32\n"
    )
    assert not (tmp_path / "out").exists()
    whole = run_cli("export", adapter, "--output", tmp_path / "out", "--dtype", "float32")
    assert whole.exit_code == 0, whole.stderr


def test_an_adapter_of_modules_that_no_embedding_passes_is_refused(
    tiny_model: Path, tmp_path: Path, run_cli: Callable[..., Result]
) -> None:
    adapter = write_adapter(tiny_model, tmp_path / "adapter", size=0.1, target_modules=["pooler.dense"])
    result = run_cli("export", adapter, "--output", tmp_path / "out")
    assert (result.exit_code, "the adapter changes no embedding" in result.stderr) == (2, True)


def test_an_adapter_that_learned_nothing_is_the_base(
    half: Path, tmp_path: Path, run_cli: Callable[..., Result]
) -> None:
    adapter = write_adapter(half, tmp_path / "adapter", size=0.0)
    result = run_cli("export", adapter, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    ours, base = (load_encoder(str(folder)).encode(ITEMS, "query") for folder in (tmp_path / "out", half))
    np.testing.assert_array_equal(ours, base)


def recipe_of(model: Path, data: Path, *, lora: dict[str, Any] | None = None, **train_: Any) -> Recipe:
    settings = {"batch_size": 6, "epochs": 2, "precision": "bf16", **train_}
    block = {"name": str(model), "lora": {"rank": 2, **(lora or {})}}
    return check_recipe(
        {"version": 1, "model": block, "data": {"train": str(data), "validation": 0.3}, "train": settings}
    )


def test_a_run_whose_learning_is_lost_in_rounding_does_not_finish(
    half: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(half, tiny_dataset, learning_rate=1e-12, max_steps=2)
    recipe = check_recipe_without_validation(recipe)
    with pytest.raises(InputError, match=r"loses the adapter.*`embedtune export .*adapter --dtype float32 --output"):
        train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "adapter" / adapters.WEIGHTS).exists()
    assert not (tmp_path / "run" / "model").exists()


def check_recipe_without_validation(recipe: Recipe) -> Recipe:
    import dataclasses

    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, validation=None))


@pytest.mark.parametrize("lora", [{}, {"init": "pissa"}, {"dora": True}], ids=["plain", "pissa", "dora"])
def test_a_run_that_the_untouched_model_wins_ends_with_it(
    lora: dict[str, Any], half: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    harmful = {"learning_rate": 1.0, "warmup": 0.0, "clip": None}
    run = train(recipe_of(half, tiny_dataset, lora=lora, max_steps=4, **harmful), tmp_path / "run")
    assert (run.best_step, run.untouched is not None) == (0, True)
    ours, base = (load_encoder(str(folder)).encode(ITEMS, "query") for folder in (run.model, half))
    np.testing.assert_array_equal(ours, base)


def test_a_mixture_that_rounding_makes_the_base_is_not_saved(half: Path, tmp_path: Path) -> None:
    tuned = load_encoder(str(half)).model
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.mul_(1 + 2**-7)
    from embedtune.models.saving import save_model

    save_model(tuned, tmp_path / "tuned")
    mixtures = Mixtures(block_of(half), block_of(tmp_path / "tuned"), "fp32")
    with pytest.raises(InputError, match=r"alpha 0\.01: rounding to bfloat16 loses what was tuned"):
        mixtures.save(0.01, tmp_path / "mixed")
    mixtures.save(1.0, tmp_path / "whole")


def block_of(folder: Path) -> Any:
    from embedtune.recipe import Model

    return Model(name=str(folder))
