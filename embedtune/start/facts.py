"""What a first recipe follows from: the data's sizes and lengths, the model's limits, the machine."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..data.jsonl import read_json_object
from ..errors import InputError
from ..models.folders import locate
from ..recipe import Validation
from ..train.preflight import ModelSize, model_size, with_weights
from ..train.sizes import pair_count, training_queries
from ..types import Dataset, Item, Items

FEW_QUERIES = 100  # below these, none are held out for validation
SAMPLE = 1000  # items whose texts are read
TOKENS_A_WORD = 1.4  # of English prose in a BERT vocabulary; used where the model's tokenizer is not here


@dataclass(frozen=True, kw_only=True)
class TokenLengths:
    """Tokens of a role's texts: the median, the 95th percentile and the largest, of `sample` texts."""

    sample: int
    median: int
    most: int
    p95: int


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The training split and the split to test on.

    held_out: the share of the training queries that validate; None for none. drawn: the positives of a query that an
    epoch has. pairs: of an epoch, by the two.
    queries: those with a positive. positives: their judgements above 0. modalities: role -> "text", "image" or
    "text and image". latin: the share of letters that are Latin. tested: queries with a positive in the test split.
    counted: whether lengths were counted by the model's tokenizer; else they are estimated from words.
    """

    documents: int
    queries: int
    positives: int
    graded: bool
    modalities: dict[str, str]
    lengths: dict[str, TokenLengths]
    counted: bool
    latin: float
    tested: int
    held_out: float | None
    drawn: Literal["each"] | int
    pairs: int

    @property
    def positives_a_query(self) -> float:
        return self.positives / self.queries

    @property
    def pictured(self) -> bool:
        return any(modality != "text" for modality in self.modalities.values())


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model by its files. size: None where it is not on this machine. limit: tokens that it reads at most."""

    name: str
    size: ModelSize | None
    limit: int | None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """kind: cpu, cuda or mps. memory: free bytes where the model is. precision: what `auto` selects here."""

    kind: str
    name: str
    cores: int
    memory: int
    precision: str


def machine() -> Machine:
    """This machine, as a run would use it."""
    import torch

    from ..models.precision import resolve_device, resolve_precision

    device = resolve_device()
    if device.type == "cuda":
        memory, name = torch.cuda.mem_get_info(device)[0], torch.cuda.get_device_name(device)
    else:
        memory, name = free_memory(), "no GPU" if device.type == "cpu" else "Apple GPU"
    cores = torch.get_num_threads()
    return Machine(kind=device.type, name=name, cores=cores, memory=memory, precision=resolve_precision("auto", device))


def free_memory() -> int:
    """Bytes that this process may still take, by the system and by the container's limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        free = min(free, max(0, int(text) - int(used.read_text())))
    return free


def model_facts(name: str) -> ModelFacts:
    """Raises InputError for a name that is neither a folder nor shaped like a hub id."""
    folder = with_weights(locate(name).folder)
    if folder is None:
        return ModelFacts(name=name, size=None, limit=None)
    saved = folder / "sentence_bert_config.json"
    limit = read_json_object(saved).get("max_seq_length") if saved.exists() else None
    size = model_size(folder, None)
    return ModelFacts(name=name, size=size, limit=min(int(limit), size.length) if limit else size.length)


def data_facts(train: Dataset, test: Dataset, model: ModelFacts | None) -> DataFacts:
    """Reads at most SAMPLE items of each role."""
    judged = [[grade for grade in documents.values() if grade > 0] for documents in train.qrels.values()]
    queries = [grades for grades in judged if grades]
    samples = {
        "query": _sample(train.queries, [q for q, grades in zip(train.qrels, judged, strict=True) if grades]),
        "document": _sample(train.corpus, train.corpus.ids),
    }
    count = _counter(model.name) if model else None
    held_out = held_out_share(len(queries))
    drawn: Literal["each"] | int = "each" if sum(map(len, queries)) <= 8 * len(queries) else 4
    validation = Validation(share=held_out) if held_out is not None else None
    return DataFacts(
        documents=len(train.corpus),
        queries=len(queries),
        positives=sum(map(len, queries)),
        graded=len({grade for grades in queries for grade in grades}) > 1,
        modalities={role: _modality(items) for role, items in samples.items()},
        lengths={role: _lengths([item.content for item in items], count) for role, items in samples.items()},
        counted=count is not None,
        latin=_latin([item.content for items in samples.values() for item in items]),
        tested=sum(any(grade > 0 for grade in documents.values()) for documents in test.qrels.values()),
        held_out=held_out,
        drawn=drawn,
        pairs=pair_count(train, training_queries(train, validation, 0)[0], drawn),
    )


def held_out_share(queries: int) -> float | None:
    """The share of the training queries that validate: a tenth, of small sets up to a fifth, of large ones 1,000."""
    if queries < FEW_QUERIES:
        return None
    return round(min(0.2, max(50 / queries, min(0.1, 1000 / queries))), 4)


def _sample(items: Items, ids: Sequence[str]) -> list[Item]:
    drawn = random.Random("init").sample(list(ids), min(SAMPLE, len(ids)))
    return [items[item_id] for item_id in drawn]


def _modality(items: Sequence[Item]) -> str:
    kinds = [kind for kind, has in (("text", any(i.content for i in items)), ("image", any(i.image for i in items)))
             if has]  # fmt: skip
    return " and ".join(kinds) or "text"


def _lengths(texts: Sequence[str], count: Callable[[Sequence[str]], list[int]] | None) -> TokenLengths:
    tokens = count(texts) if count else [round(TOKENS_A_WORD * len(text.split())) + 2 for text in texts]
    return TokenLengths(
        sample=len(tokens),
        median=int(np.median(tokens)),
        p95=int(np.percentile(tokens, 95)),
        most=max(tokens),
    )


def _counter(name: str) -> Callable[[Sequence[str]], list[int]] | None:
    """Counts a text's tokens by the model's own tokenizer; None where its file is not here."""
    from tokenizers import Tokenizer

    folder = with_weights(locate(name).folder)
    files = sorted(folder.rglob("tokenizer.json"), key=lambda path: len(path.parts)) if folder else []
    if not files:
        return None
    try:
        tokenizer = Tokenizer.from_file(str(files[0]))
    except Exception as error:  # the library raises a bare Exception
        raise InputError(f"{files[0]}: damaged tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]


def _latin(texts: Sequence[str]) -> float:
    letters = [letter for text in texts for letter in text[:200] if letter.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return latin / len(letters) if letters else 1.0
