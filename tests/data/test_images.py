"""Opening images: every kind comes out upright and RGB, and what cannot be read is told with its file."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import BROKEN, as_bytes, draw
from PIL import Image

from embedtune.data import images
from embedtune.data.images import BrokenImage, faults_of, identity, open_image, open_images


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
    (fault,) = faults_of([path])
    assert fault is not None
    assert fault.startswith(message)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert faults_of([tmp_path / "none.png", tmp_path]) == ["no such image", "not a regular file"]
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


def test_threads_open_what_one_thread_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for n, colour in enumerate(["red", "blue", "black", "green"] * 8):
        paths.append(tmp_path / f"{n}.png")
        draw(colour, "circle", "top", size=30 + n).save(paths[-1])
    broken = tmp_path / "cut.jpg"
    broken.write_bytes(BROKEN["cut.jpg"][0]())
    mixed = [paths[0], broken, tmp_path / "none.png"]
    with ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr(images, "_threads", lambda: pool)
        threaded, threaded_faults = open_images(paths), faults_of(mixed)
        with pytest.raises(BrokenImage, match=r"cut\.jpg: damaged image"):
            open_images(mixed)
    assert [image.tobytes() for image in threaded] == [open_image(path).tobytes() for path in paths]
    assert threaded_faults[0] is None
    assert threaded_faults[1:] == [faults_of([path])[0] for path in mixed[1:]]
    assert str(threaded_faults[1]).startswith("damaged image")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among the files here")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    # In a process of its own, which a wait for the pipe's writer could not outlive.
    code = "import sys, pathlib; from embedtune.data.images import *; p = pathlib.Path(sys.argv[1])\n"
    code += "for reads in (open_image, identity):\n  try: reads(p)\n  except BrokenImage as fault: print(fault.reason)"
    done = subprocess.run([sys.executable, "-c", code, str(pipe)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("not a regular file\n" * 2, 0), done.stderr
