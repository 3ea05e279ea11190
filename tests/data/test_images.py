"""Opening images: every kind comes out upright and RGB, and what cannot be read is told with its file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import BROKEN, as_bytes, draw
from PIL import Image

from embedtune.data.decoding import Decoders
from embedtune.data.images import BrokenImage, fault_of, identity, open_image


def opened(path: Path, content: bytes) -> Image.Image:
    path.write_bytes(content)
    image = open_image(path)
    assert image.mode == "RGB"
    return image


def test_every_kind_becomes_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16))
    for form in ("PNG", "TIFF"):
        assert opened(tmp_path / "16-bit", as_bytes(grey, form)).getpixel((15, 15)) == (255, 255, 255)
        assert opened(tmp_path / "16-bit", as_bytes(grey, form)).getpixel((0, 8)) == (128, 128, 128)
    cyan = as_bytes(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")
    assert opened(tmp_path / "cmyk.jpg", cyan).getpixel((4, 4)) == (0, 255, 255)
    assert opened(tmp_path / "bits.png", as_bytes(Image.new("1", (8, 8), 1))).getpixel((4, 4)) == (255, 255, 255)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 128))
    image = opened(tmp_path / "alpha.png", as_bytes(clear))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 0)) == (127, 127, 127)
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    image = opened(tmp_path / "palette.png", as_bytes(palette, transparency=0))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 255, 0)]


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame(tmp_path: Path, form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = as_bytes(frames[0], form, save_all=True, append_images=frames[1:])
    red, green, blue = np.asarray(opened(tmp_path / "moving", content))[4, 4].tolist()
    assert red > 240
    assert green < 20
    assert blue < 20


def test_it_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x112] = 6  # turn clockwise to show
    turned = opened(tmp_path / "turned.jpg", as_bytes(image, "JPEG", exif=exif))
    assert turned.size == (4, 8)
    assert np.asarray(turned)[1].mean() > 200 > 50 > np.asarray(turned)[6].mean()


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_read_is_told_with_its_file(tmp_path: Path, name: str) -> None:
    make, message = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(BrokenImage) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    fault = fault_of(path)
    assert fault is not None
    assert fault.startswith(message)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "none.png") == "no such image"
    assert fault_of(tmp_path) == "cannot be read: Is a directory"
    with pytest.raises(BrokenImage, match=r"none\.png: no such image"):
        identity(tmp_path / "none.png")


def test_identity_is_of_the_bytes(tmp_path: Path) -> None:
    first, copy = tmp_path / "a.png", tmp_path / "b.png"
    first.write_bytes(as_bytes(draw("red", "circle", "left")))
    copy.write_bytes(first.read_bytes())
    before = identity(first)
    assert before == identity(copy)
    first.write_bytes(as_bytes(draw("blue", "circle", "left")))
    assert identity(first) != before


def test_workers_open_what_this_process_opens(tmp_path: Path) -> None:
    paths = []
    for n, (colour, shape) in enumerate(
        [("red", "circle"), ("blue", "ring"), ("black", "bar"), ("green", "square")] * 2
    ):
        paths.append(tmp_path / f"{n}.png")
        draw(colour, shape, "top", size=30 + n).save(paths[-1])
    broken = tmp_path / "cut.jpg"
    broken.write_bytes(BROKEN["cut.jpg"][0]())
    here, workers = Decoders(0), Decoders(2)
    try:
        for one, other in zip(here.open(paths), workers.open(paths), strict=True):
            assert one.size == other.size
            assert one.tobytes() == other.tobytes()
        mixed = [paths[0], broken, tmp_path / "none.png"]
        assert workers.faults(mixed) == here.faults(mixed)
        with pytest.raises(BrokenImage, match=r"cut\.jpg: damaged image"):
            workers.open(mixed)
        workers._processes[0].kill()  # a worker that dies is replaced, and its image asked for again
        workers._processes[0].wait()
        assert len(workers.open(paths)) == len(paths)
    finally:
        workers.close()
    assert workers._processes == []


def test_decoding_needs_no_torch() -> None:
    code = "import sys, embedtune.data.decoding; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
