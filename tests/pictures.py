"""Pictures to test with: coloured shapes and a dataset folder of them, and files with one fault each."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (240, 220, 40),
    "black": (10, 10, 10),
    "purple": (130, 40, 160),
}
SHAPES = ["circle", "square", "triangle", "bar", "ring"]
PLACES = ["left", "right", "top", "bottom"]


def draw(colour: str, shape: str, place: str, size: int = 40) -> Image.Image:
    """One shape on white; `place` moves it."""
    image = Image.new("RGB", (size, size), "white")
    pen, third = ImageDraw.Draw(image), size // 4
    dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}[place]
    x, y = size // 2 + dx * size // 5, size // 2 + dy * size // 5
    box = (x - third, y - third, x + third, y + third)
    fill = COLOURS[colour]
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "square":
        pen.rectangle(box, fill=fill)
    elif shape == "triangle":
        pen.polygon([(box[0], box[3]), (box[2], box[3]), (x, box[1])], fill=fill)
    elif shape == "bar":
        pen.rectangle((box[0], y - 3, box[2], y + 3), fill=fill)
    else:
        pen.ellipse(box, outline=fill, width=3)
    return image


def write_pictures(folder: Path, *, documents: int = 48, test: int = 16, seed: int = 0) -> Path:
    """A dataset folder: every document is a picture, every query names what is in one. The last `test` are the test."""
    rng = random.Random(seed)
    kinds = [(c, s, p) for c in COLOURS for s in SHAPES for p in PLACES]
    rng.shuffle(kinds)
    (folder / "images").mkdir(parents=True)
    (folder / "qrels").mkdir()
    corpus, queries, qrels = [], [], {"train": ["query-id\tcorpus-id\tscore"], "test": ["query-id\tcorpus-id\tscore"]}
    for n, (colour, shape, place) in enumerate(kinds[:documents]):
        draw(colour, shape, place).save(folder / "images" / f"{n}.png")
        corpus.append({"_id": f"d{n}", "image": f"images/{n}.png"})
        queries.append({"_id": f"q{n}", "text": f"a {colour} {shape} on the {place}"})
        qrels["test" if n >= documents - test else "train"].append(f"q{n}\td{n}\t1")
    for name, items in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    for split, lines in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def as_bytes(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)  # type: ignore[arg-type]
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims that size, with hardly any pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut.jpg": (lambda: _cut(as_bytes(Image.effect_noise((100, 100), 60), "JPEG")), "damaged image: "),
    "cut.png": (lambda: _cut(as_bytes(Image.effect_noise((100, 100), 60))), "damaged image: "),
    "text.jpg": (lambda: b"these are words", "not an image (of JPEG, PNG, "),
    "empty.png": (lambda: b"", "not an image (of JPEG, PNG, "),
    "script.eps": (lambda: as_bytes(Image.new("RGB", (4, 4)), "EPS"), "not an image (of JPEG, PNG, "),
    "bomb.png": (lambda: png_of_size(100_000, 100_000), "more than 80,000,000 pixels"),
    "large.png": (lambda: png_of_size(9_000, 9_000), "9,000 x 9,000 pixels are more than 80,000,000"),
    "float.tif": (lambda: as_bytes(Image.new("F", (4, 4)), "TIFF"), "damaged image: pixels are floating-point numbers"),
}
"""Files that cannot be read: name -> (what writes one, how its fault begins)."""
