"""Files are whole or absent; fingerprints tell contents apart; a folder has one writer."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from embedtune.errors import InputError, unknown
from embedtune.files import (
    FolderKind,
    check_folder,
    fingerprint_of,
    inner_folder,
    is_locked,
    locked,
    whole_file,
    whole_folder,
    write_json,
    write_lines,
)

NOTED = FolderKind(verb="note", unmarked={"0.txt"}.__eq__)


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


def test_a_folder_takes_the_place_of_an_earlier_one_of_its_kind(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for number in range(2):
        with whole_folder(target, NOTED, overwrite=True) as temporary:
            (temporary / f"{number}.txt").touch()
    assert {path.name for path in target.iterdir()} == {"1.txt", ".embedtune.json"}
    with pytest.raises(ZeroDivisionError), whole_folder(target, NOTED, overwrite=True) as temporary:
        (temporary / f"{1 / 0}.txt").touch()
    assert {path.name for path in target.iterdir()} == {"1.txt", ".embedtune.json"}
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_written_before_there_were_marks_is_known_by_its_files(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "0.txt").touch()
    with pytest.raises(InputError, match="exists already; choose another --output, or replace it with --overwrite"):
        check_folder(target, NOTED)
    check_folder(target, NOTED, overwrite=True)
    (target / "more.txt").touch()
    with pytest.raises(InputError, match="exists already and is no earlier result of this command"):
        check_folder(target, NOTED, overwrite=True)


def test_a_file_of_another_in_a_result_is_named(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with whole_folder(target, NOTED) as temporary:
        (temporary / "0.txt").touch()
    (target / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"folder: holds 'thesis\.tex', which `embedtune note` did not write"):
        check_folder(target, NOTED, overwrite=True)
    other = FolderKind(verb="draw")
    with pytest.raises(InputError, match="exists already and holds a result of `embedtune note`"):
        check_folder(target, other, overwrite=True)


def test_a_file_of_another_below_a_result_is_named(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with whole_folder(target, NOTED) as temporary:
        (temporary / "part" / "empty").mkdir(parents=True)
        (temporary / "part" / "0.txt").touch()
    check_folder(target, NOTED, overwrite=True)
    (target / "part" / "mine").mkdir()
    for name in ("0.txt", ".hidden"):
        (target / "part" / "mine" / name).touch()
        with pytest.raises(InputError, match=rf"holds 'part/mine/{name}', which `embedtune note` did not write"):
            check_folder(target, NOTED, overwrite=True)
        (target / "part" / "mine" / name).unlink()
    (target / "part" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="holds 'part/link'"):
        check_folder(target, NOTED, overwrite=True)


def test_a_mark_that_lists_the_outer_names_alone_is_read(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "0.txt").touch()
    (tmp_path / ".embedtune.json").write_text('{"verb": "note", "names": ["part"]}')
    check_folder(tmp_path, NOTED, overwrite=True)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds 'thesis\.tex', which `embedtune note` did not write"):
        check_folder(tmp_path, NOTED, overwrite=True)


def test_a_user_without_a_home_folder_writes_as_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    check_folder(tmp_path, NOTED)
    (tmp_path / "0.txt").touch()
    check_folder(tmp_path, NOTED, overwrite=True)


def test_what_comes_to_stand_there_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def write_beside_another() -> None:
        with whole_folder(target, NOTED, overwrite=True) as temporary:
            (temporary / "0.txt").touch()
            target.mkdir()
            (target / "corpus.jsonl").write_text("precious")

    with pytest.raises(InputError, match="holds a dataset"):
        write_beside_another()
    assert (target / "corpus.jsonl").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [target]


def test_at_every_moment_of_replacing_a_folder_one_of_the_two_stands_there(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    done = threading.Event()
    absent: list[float] = []

    def watch() -> None:
        while not done.is_set():
            if not (target / "state").is_dir():
                absent.append(time.monotonic())

    with inner_folder(target) as temporary:
        (temporary / "state").mkdir()
    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        with inner_folder(target) as temporary:
            (temporary / "state").mkdir()
    done.set()
    watcher.join()
    assert not absent


def test_two_writers_of_one_folder_both_succeed(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    failed: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for _ in range(100):
                with inner_folder(target) as temporary:
                    for number in range(3):
                        (temporary / f"{name}{number}").touch()
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failed
    assert len({path.name[0] for path in target.iterdir()}) == 1
    assert sorted(path.name[1] for path in target.iterdir()) == ["0", "1", "2"]
    assert list(tmp_path.iterdir()) == [target]


def test_without_an_exchange_in_one_step_a_folder_is_replaced_in_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    for number in range(2):
        with inner_folder(tmp_path / "folder") as temporary:
            (temporary / f"{number}.txt").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["1.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name != "posix", reason="no file modes here")
def test_modes_are_the_umasks_also_where_a_library_writes_for_its_owner_alone(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    before = os.umask(0o022)
    try:
        with inner_folder(tmp_path / "folder") as temporary:
            (temporary / "deep").mkdir()
            save_file({"x": torch.zeros(1)}, temporary / "deep" / "model.safetensors")
        with whole_file(tmp_path / "file") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"folder": 0o755, "deep": 0o755, "model.safetensors": 0o644, "file": 0o644}


@pytest.mark.skipif(os.name != "posix", reason="no umask here")
def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(mask: int) -> int:
        raise AssertionError(mask)

    monkeypatch.setattr("os.umask", changed)
    write_json(tmp_path / "file.json", {})
    with inner_folder(tmp_path / "folder"):
        pass


def test_a_full_disk_is_the_operating_systems_error_whoever_writes(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, inner_folder(tmp_path / "x"):
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


def test_a_look_whether_a_folder_is_held_takes_it_from_nobody(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    done = threading.Event()
    looks: list[bool] = []

    def look() -> None:
        while not done.is_set():
            looks.append(is_locked(tmp_path))

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            with locked(tmp_path):
                assert is_locked(tmp_path)
    finally:
        done.set()
        for looker in lookers:
            looker.join()
    assert {True, False} <= set(looks)


def test_a_look_makes_no_file(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "absent")
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert unknown("key", "epoch", ["epochs", "seed"]) == "unknown key 'epoch': did you mean 'epochs'?"
    assert unknown("key", "zzz", ["epochs", "seed"]) == "unknown key 'zzz': known are epochs, seed"
    assert unknown("key", "zzz", []) == "unknown key 'zzz': none are known"
