"""The images that a protocol's rows name: inside its folders, bounded, of known formats."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from protocol_layouts import picture

from embedtune.errors import InputError
from embedtune.evaluate.protocols import open_suite


def aro(folder: Path, box: tuple[int, int, int, int] = (1, 1, 4, 4)) -> Path:
    """A folder with one row of ARO's relations; its image is `cat.png`."""
    row = {
        "image_path": "cat.png",
        "true_caption": "a cat on a mat",
        "false_caption": "a mat on a cat",
        "relation_name": "on",
        **{f"bbox_{side}": value for side, value in zip("xywh", box, strict=True)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "visual_genome_relation.json").write_text(json.dumps([row]))
    return folder


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = aro(tmp_path / "aro")
    (folder / "cat.png").symlink_to(picture(tmp_path / "secret.png"))
    with pytest.raises(InputError, match=rf"image {folder}/cat.png is a link to {tmp_path}/secret.png, outside the"):
        open_suite(folder)
    (folder / "cat.png").unlink()
    picture(tmp_path / "elsewhere/cat.png")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link to"):
        open_suite(folder)
    assert open_suite(folder, images=tmp_path / "elsewhere") is not None


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    folder = aro(tmp_path / "aro")
    picture(folder / "originals/cat.png")
    (folder / "cat.png").symlink_to("originals/cat.png")
    assert open_suite(folder) is not None


@pytest.mark.parametrize(
    "box", [(100, 100, 4, 4), (0, 0, 10_000, 8_000), (0, 0, 0, 4), (-9, 0, 5, 5), (0, 0, 17, 4), (3, 3, -2, 2)]
)
def test_a_box_that_does_not_fit_the_image_is_refused(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    folder = aro(tmp_path / "aro", box)
    picture(folder / "cat.png", size=(8, 6))
    with pytest.raises(InputError, match=r"does not fit the image of 8 x 6 pixels"):
        open_suite(folder)


def test_a_box_over_the_edge_is_filled_with_black_as_in_the_released_code(tmp_path: Path) -> None:
    folder = aro(tmp_path / "aro", (6, 2, 4, 3))
    picture(folder / "cat.png", colour=200, size=(8, 6))
    suite = open_suite(folder)
    assert suite is not None
    image = suite.tasks[0].queries[0].image
    assert image is not None
    with Image.open(image) as crop, Image.open(folder / "cat.png") as original:
        assert crop.size == (4, 3)
        assert crop.tobytes() == original.convert("RGB").crop((6, 2, 10, 5)).tobytes()
        assert crop.getpixel((3, 0)) == (0, 0, 0)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_an_image_over_the_pixel_bound_is_refused_by_its_header(tmp_path: Path) -> None:
    folder = aro(tmp_path / "aro")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 8_001, 8, 2, 0, 0, 0))
    (folder / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"10,000 x 8,001 pixels are more than 80,000,000"):
        open_suite(folder)


def test_a_format_that_is_not_read_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = aro(tmp_path / "aro")
    Image.new("RGB", (8, 6)).save(folder / "cat.png", format="TGA")
    with pytest.raises(InputError, match=r"cat\.png: not an image"):
        open_suite(folder)
