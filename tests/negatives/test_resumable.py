"""A mining that is killed goes on where it was: bit-identical files, and no pair is scored twice."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import mining_process
import pytest
from mining_jobs import mine
from mining_process import BLOCK, start
from tiny_models import write_cross_encoder

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError, Interrupted
from embedtune.files import locked
from embedtune.models.encoder import load_encoder
from embedtune.models.scorers import EncoderScores
from embedtune.negatives import candidates, resumable
from embedtune.negatives.evidence import MiningFiles
from embedtune.recipe import Chosen, Negatives, Recipe, check_recipe

NAMES = ["mined.json", "mined.jsonl", "mined.run"]


@pytest.fixture(scope="module")
def cross(bare_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross"), bare_checkpoint)


def taught_by(cross: Path) -> Negatives:
    mining = [Chosen(name="dense", options={"depth": 5}), Chosen(name="random", options={"depth": 3})]
    filters = [Chosen(name="guide"), Chosen(name="positive_ratio", options={"at_most": 1.001})]
    return Negatives(mining=mining, filtering=filters, teacher=f"cross-encoder:{cross}")


def asked_in(path: Path) -> list[str]:
    return path.read_text().split()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_killed_mining_goes_on(tiny_model: Path, tiny_dataset: Path, cross: Path, tmp_path: Path) -> None:
    negatives = taught_by(cross)

    def run(name: str, kill_at: int | None, every: float = 0.0) -> int:
        output, asked = tmp_path / name / "mined.run", tmp_path / f"{name}.txt"
        return start(mining_process.mine, tiny_dataset, tiny_model, negatives, output, asked, kill_at, every)

    assert run("whole", None) == 0
    queries = asked_in(tmp_path / "whole.txt")
    assert len(queries) == len(set(queries)) == 20

    for kill_at in (3, 5, 0, 7):  # in the first block, in the second, at once, in the third
        assert run("killed", kill_at) == -9
        assert [path.name for path in (tmp_path / "killed").iterdir()] == [".mined.run.partial"]
    assert run("killed", None) == 0
    assert asked_in(tmp_path / "killed.txt") == queries
    assert list(contents(tmp_path / "killed")) == NAMES
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")

    assert run("blocks", 8, every=1e9) == -9  # only whole blocks are places to go on from
    assert run("blocks", None, every=1e9) == 0
    assert asked_in(tmp_path / "blocks.txt") == [*queries[:8], *queries[BLOCK:]]
    assert contents(tmp_path / "blocks") == contents(tmp_path / "whole")


def test_a_changed_option_starts_afresh(tiny_model: Path, tiny_dataset: Path, cross: Path, tmp_path: Path) -> None:
    first = taught_by(cross)
    changed = dataclasses.replace(first, filtering=first.filtering[1:])

    def run(name: str, negatives: Negatives, kill_at: int | None) -> int:
        output, asked = tmp_path / name / "mined.run", tmp_path / f"{name}.txt"
        return start(mining_process.mine, tiny_dataset, tiny_model, negatives, output, asked, kill_at, 0.0)

    assert run("killed", first, 9) == -9
    assert run("killed", changed, None) == 0
    assert len(asked_in(tmp_path / "killed.txt")) == 9 + 20
    assert list(contents(tmp_path / "killed")) == NAMES  # what the first had left is gone as well
    assert run("whole", changed, None) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def recipe_of(model: Path, data: Path, cross: Path) -> Recipe:
    block = {"mining": {"name": "dense", "depth": 4}, "teacher": f"cross-encoder:{cross}", "refresh": {"every": 1}}
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": str(data)},
            "negatives": block,
            "train": {"batch_size": 8, "max_steps": 2, "checkpoint_every": 1},
        }
    )


def test_training_goes_on_with_its_mining(tiny_model: Path, tiny_dataset: Path, cross: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, cross)

    def run(name: str, kill_at: int | None) -> int:
        return start(mining_process.train, recipe, tmp_path / name, tmp_path / f"{name}.txt", kill_at, 0.0)

    assert run("whole", None) == 0
    queries = asked_in(tmp_path / "whole.txt")
    assert len(queries) == 2 * 20  # by the base weights, and after the first step
    assert run("killed", 7) == -9
    assert run("killed", 13 + 9) == -9  # in the second mining
    assert run("killed", None) == 0
    assert asked_in(tmp_path / "killed.txt") == queries
    found, expected = (contents(tmp_path / name / "negatives") for name in ("killed", "whole"))
    assert list(found) == [*NAMES, "step-000001.json", "step-000001.jsonl", "step-000001.run"]
    assert found == expected
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]


def test_what_is_left_after_each_end(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, encoder = load_dataset(tiny_dataset, "train"), load_encoder(str(tiny_model))
    negatives = Negatives(mining=[Chosen(name="dense", options={"depth": 5})])
    refused = dataclasses.replace(negatives, filtering=[Chosen(name="absolute", options={"below": -2.0})])
    output, real = tmp_path / "out" / "mined.run", EncoderScores.__call__
    partial = output.with_name(".mined.run.partial")
    calls = iter(range(10**6))

    def stopped(at: int, error: type[BaseException]) -> None:
        count = next(calls)

        def scored(self: EncoderScores, *arguments: Any) -> Any:
            if next(calls) - count > at:
                raise error
            return real(self, *arguments)

        monkeypatch.setattr(EncoderScores, "__call__", scored)

    monkeypatch.setattr(candidates, "BLOCK", BLOCK)
    stopped(3, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):  # nothing to go on from yet
        mine(data, encoder, negatives, output)
    assert not list(output.parent.iterdir())
    stopped(8, KeyboardInterrupt)
    with pytest.raises(Interrupted, match=r"mined\.run: 6 queries are mined; start the same command again to go on"):
        mine(data, encoder, negatives, output)
    with locked(partial), pytest.raises(InputError, match=r"\.mined\.run\.partial: another run is writing here"):
        mine(data, encoder, negatives, output)
    stopped(1000, KeyboardInterrupt)
    with pytest.raises(InputError, match="candidates are dropped"):
        mine(data, encoder, refused, output)
    assert len([path for path in partial.iterdir() if path.is_dir()]) == 1  # the other command's stays
    stopped(8, RuntimeError)  # such as a GPU that is out of memory
    with pytest.raises(RuntimeError):
        mine(data, encoder, negatives, output)
    before = next(calls)
    stopped(1000, KeyboardInterrupt)
    report = mine(data, encoder, negatives, output)
    assert report.queries == 20
    assert next(calls) - before - 2 == 20 - 2 * BLOCK
    assert list(contents(output.parent)) == NAMES


def test_a_place_whose_files_are_gone_is_none(tmp_path: Path) -> None:
    files = MiningFiles(tmp_path / "mined.run")
    partial = tmp_path / ".mined.run.partial" / "key"
    with suppress(RuntimeError), resumable.resumable(files, "key") as kept:
        kept.run.write("a line\n")
        kept.save({"queries": 1})
        kept.run.write("torn")
        raise RuntimeError
    assert (partial / "mined.run").read_text() == "a line\ntorn"
    with suppress(RuntimeError), resumable.resumable(files, "key") as kept:
        assert kept.report == {"queries": 1}
        raise RuntimeError
    assert (partial / "mined.run").read_text() == "a line\n"
    (partial / "mined.run").write_text("short")
    with resumable.resumable(files, "key") as kept:
        assert kept.report is None
        kept.run.write("another\n")
        kept.finish({"queries": 2}, {"seed": 0})
    assert contents(tmp_path) == {"mined.json": b'{\n  "seed": 0\n}\n', "mined.jsonl": b"", "mined.run": b"another\n"}


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    def fill() -> None:
        with resumable.resumable(MiningFiles(tmp_path / "mined.run"), "key") as kept:
            kept.run.close()
            kept.run = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
            kept.run.write("a line\n")
            kept.save({"queries": 1})

    with pytest.raises(OSError, match="No space left on device"):
        fill()
    assert not list(tmp_path.iterdir())
