"""Files are whole or absent; fingerprints tell contents apart; a folder has one writer."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from embedtune.errors import InputError, unknown
from embedtune.files import fingerprint_of, locked, whole_file, whole_folder, write_json, write_lines


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with whole_file(target) as temporary:
        temporary.write_text("all of it")
        assert not target.exists()
    assert target.read_text() == "all of it"
    with pytest.raises(ZeroDivisionError), whole_file(target) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert target.read_text() == "all of it"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for number in range(2):
        with whole_folder(target) as temporary:
            (temporary / f"{number}.txt").touch()
    assert [path.name for path in target.iterdir()] == ["1.txt"]
    with pytest.raises(ZeroDivisionError), whole_folder(target) as temporary:
        (temporary / f"{1 / 0}.txt").touch()
    assert [path.name for path in target.iterdir()] == ["1.txt"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_the_operating_systems_error_whoever_writes(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, whole_folder(tmp_path / "x"):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC


def test_json_without_a_number_that_json_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"nDCG@10": float("nan")})
    assert not (tmp_path / "x.json").exists()
    write_lines(tmp_path / "x.txt", ["é", "b"])
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "é\nb\n"


@given(st.lists(st.text()), st.lists(st.text()))
def test_fingerprints_tell_parts_apart(one: list[str], other: list[str]) -> None:
    assert (fingerprint_of(*one) == fingerprint_of(*other)) == (one == other)


def test_a_lock_names_its_holder_and_ends_with_its_block(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another run is writing here"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert unknown("key", "epoch", ["epochs", "seed"]) == "unknown key 'epoch': did you mean 'epochs'?"
    assert unknown("key", "zzz", ["epochs", "seed"]) == "unknown key 'zzz': known are epochs, seed"
    assert unknown("key", "zzz", []) == "unknown key 'zzz': none are known"
