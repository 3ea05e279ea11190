"""Whether a server's embeddings are the model's: asked with texts that tell mistakes apart, and the likeliest cause.

A cause is found by trial: the model itself is run as a server with that mistake would run it, and the mistake whose
vectors come closest to the server's is named.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from ..evaluate.retrieval import Retrieval, encode, evaluate_encoded
from ..evaluate.significance import Paired, paired
from ..models.encoder import Encoder
from ..types import Dataset, Item, Role
from .endpoint import TEXTS_AT_ONCE, Endpoint, Refused

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]  # (n, H)
SAME = 0.9995  # the cosine from which two vectors are those of one setting in any number format
EXPLAINED = 0.98  # the mean cosine from which a setting counts as the server's
LONGEST = 4096  # tokens of the longest text that is tried
LENGTHS = (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, LONGEST)
POOLINGS = {"mean": "the mean of all tokens", "cls": "the first token", "lasttoken": "the last token",
            "max": "each dimension's maximum"}  # fmt: skip
SHORT = (
    "river", "The Elbe.", "How long is the Elbe?", "how long is the elbe", "HOW LONG IS THE ELBE?",
    "The Elbe rises in the Czech Republic and flows into the North Sea near Cuxhaven.",
    "The North Sea flows into the Elbe near Cuxhaven, and the Czech Republic rises.",
    "A café in Zürich sells crème brûlée; naïve visitors ask for jalapeño.", "Straße, Œuvre, Ångström, İstanbul",
    "def mean(values):\n    return sum(values) / len(values)", "SELECT name FROM rivers WHERE length_km > 1000;",
    "1094 km, 3.14159, 2026-11-30, 50 %, $9.99, +49 351 000", "not good, not bad", "good, not bad", "bad, not good",
    "   two  spaces   and\ttabs  ", "query: what does this word do?", "passage: what does this word do?",
    "Эльба впадает в Северное море.", "易北河流入北海。", "エルベ川は北海に注ぐ。", "نهر الإلبه", "a", "?!",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a text becomes a vector. prompt: what stands before it. max_length: None where long texts are not tried."""

    prompt: str = ""
    pooling: str | None = None
    lowered: bool = False
    max_length: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cosines:
    """The cosines between the server's vectors and the model's, of the texts of one kind, lowest first in `worst`."""

    kind: str
    texts: int
    lowest: float
    percentile_5: float
    median: float
    worst: list[tuple[str, float]]


@dataclass(kw_only=True)
class Parity:
    """causes: in words, the likeliest first; empty where the server's vectors are the model's.

    remarks: what is no fault, such as rounded numbers. distance: the largest 1 - cosine of all texts. lengths_differ:
    whether the vectors' lengths differ, which changes inner products and not cosines. settings: the one that explains
    the server's vectors of each role.
    """

    groups: list[Cosines] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    distance: float = 0.0
    lengths_differ: bool = False
    settings: dict[Role, Setting] = field(default_factory=dict)

    def passes(self, at_most: float) -> bool:
        """Whether no text's 1 - cosine exceeds `at_most`, and the vectors' lengths are the model's."""
        return self.distance <= at_most and not self.lengths_differ


def check(encoder: Encoder, endpoint: Endpoint, texts: Sequence[str] = (), *, at_most: float = 0.001) -> Parity:
    """Compares a server with the model, on texts of ours and the user's, for queries and documents.

    Raises InputError where the server cannot be asked, and for a model that reads no text.
    """
    if not encoder.reads(Item(id="", text="a")):
        raise InputError(f"model {encoder.name}: reads no text; a server is compared by texts")
    result = Parity()
    for role in _roles(encoder):
        kinds = {"short texts": list(SHORT), "long texts": long_texts(encoder), "your texts": list(texts)}
        for kind, of_kind in kinds.items():
            if of_kind:
                _compare(result, encoder, endpoint, role, (kind, of_kind), at_most)
    if result.distance > at_most and not result.causes:
        median = min(group.median for group in result.groups)
        result.causes.append(f"number format: a median cosine of {median:.4f}, as of quantised weights or vectors")
    return result


def retrieval_difference(encoder: Encoder, endpoint: Endpoint, dataset: Dataset, measure: str = "nDCG@10") -> Paired:
    """A measure of the dataset with the model's vectors (the baseline) and with the server's, query by query."""
    encoded = encode(encoder, dataset, None)
    queries = [dataset.queries[query_id].content for query_id in encoded.query_ids]
    served = replace(
        encoded,
        queries=endpoint.embed(queries, "query", encoder.prompt("query")),
        documents=endpoint.embed([item.content for item in dataset.corpus], "document", encoder.prompt("document")),
    )
    before, after = (
        evaluate_encoded(encoder, dataset, vectors, [measure], Retrieval()).per_query[measure]
        for vectors in (encoded, served)
    )
    return paired(before, after)


def _roles(encoder: Encoder) -> list[Role]:
    """Both roles where their prompts differ, else one."""
    roles: list[Role] = ["query", "document"]
    return roles if encoder.prompt("query") != encoder.prompt("document") else ["query"]


def long_texts(encoder: Encoder) -> list[str]:
    """Two texts of each length around the model's maximum and the usual ones: 3/4, once and 3/2 times, in words.

    The words are drawn from ours with a fixed seed, so that two texts of one length differ from their first word on.
    """
    generator, words = random.Random(0), " ".join(SHORT[:18]).split()
    most = min(encoder.max_length or LONGEST, LONGEST)
    counts = sorted({length * 3 // 4 for length in LENGTHS if length <= most} | {most, most * 3 // 2})
    return [" ".join(generator.choices(words, k=count)) for count in counts for _ in range(2)]


def _compare(
    result: Parity, encoder: Encoder, endpoint: Endpoint, role: Role, named: tuple[str, list[str]], at_most: float
) -> None:
    """Adds one kind of texts in one role: its cosines and, where they are too low, why."""
    kind, texts = named
    expected = encoder.encode([Item(id=str(row), text=text) for row, text in enumerate(texts)], role)
    try:
        served = endpoint.embed(texts, role, encoder.prompt(role))
    except Refused as error:
        if kind != "long texts":
            raise
        _add(result.causes, f"truncation: the server refuses long texts ({error})")
        result.distance = 1.0
        return
    label = kind if encoder.prompt("query") == encoder.prompt("document") else f"{kind} ({role})"
    if served.shape[1] != expected.shape[1]:
        if served.shape[1] > expected.shape[1]:
            raise InputError(
                f"{endpoint.url}: its vectors have {served.shape[1]} dimensions, those of {encoder.name} "
                f"{expected.shape[1]}: it serves another model"
            )
        _add(result.causes, f"dimensions: the server gives {served.shape[1]} of the model's {expected.shape[1]}")
        expected = expected[:, : served.shape[1]]
        result.lengths_differ = True
    served = _in_order(result, expected, served)
    cosines = _cosines(expected, served)
    result.groups.append(_summary(label, texts, cosines))
    result.distance = max(result.distance, float(1 - cosines.min()))
    _compare_lengths(result, expected, served)
    if cosines.min() < 1 - at_most:
        right = result.settings.get(role) or _right(encoder, role)
        start, causes = _causes(encoder, role, right, texts, served, lengths=kind != "short texts")
        result.settings[role] = start
        for cause in causes:
            _add(result.causes, cause)
        if kind == "short texts":
            _compare_alone(result, encoder, endpoint, role, served)
    _remark_on_format(result, served, float(np.median(1 - cosines)), at_most)


def _summary(label: str, texts: Sequence[str], cosines: Vectors) -> Cosines:
    worst = [(texts[row], float(cosines[row])) for row in np.argsort(cosines)[:5]]
    low, middle = np.quantile(cosines, [0.05, 0.5]).tolist()
    return Cosines(kind=label, texts=len(texts), lowest=worst[0][1], percentile_5=low, median=middle, worst=worst)


def _cosines(first: Vectors, second: Vectors) -> Vectors:
    """(n,) of rows, in float64 so that equal vectors have 1 to 1e-12."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, 1e-30))


def _in_order(result: Parity, expected: Vectors, served: Vectors) -> Vectors:
    """The server's vectors in the texts' order, with the cause where they came in another one."""
    from scipy.optimize import linear_sum_assignment

    order = np.arange(len(served))
    for start in range(0, len(served), TEXTS_AT_ONCE):
        rows = slice(start, start + TEXTS_AT_ONCE)
        a, b = (block / np.linalg.norm(block, axis=1, keepdims=True) for block in (expected[rows], served[rows]))
        similar = a @ b.T
        best = linear_sum_assignment(similar, maximize=True)[1]
        if similar[np.arange(len(best)), best].min() >= SAME > np.diag(similar).min():
            order[rows] = start + best
    if (order != np.arange(len(served))).any():
        _add(result.causes, "order: the answers to one request come in another order than its texts")
        result.distance = 1.0
    return served[order]


def _compare_lengths(result: Parity, expected: Vectors, served: Vectors) -> None:
    model_lengths, server_lengths = np.linalg.norm(expected, axis=1), np.linalg.norm(served, axis=1)
    if np.abs(server_lengths / np.maximum(model_lengths, 1e-30) - 1).max() <= 0.02:
        return
    result.lengths_differ = True
    if np.abs(model_lengths - 1).max() < 1e-3:
        _add(result.causes, "normalisation: the server's vectors are not of length 1, the model's are")
    elif np.abs(server_lengths - 1).max() < 1e-2:
        _add(result.causes, "normalisation: the server's vectors are of length 1, the model's are not")


def _compare_alone(result: Parity, encoder: Encoder, endpoint: Endpoint, role: Role, served: Vectors) -> None:
    alone = endpoint.embed(SHORT[:1], role, encoder.prompt(role))
    if _cosines(alone, served[:1])[0] < SAME and not result.causes:
        result.causes.append("batching: a text's vector depends on the other texts of its request")


def _remark_on_format(result: Parity, served: Vectors, distance: float, at_most: float) -> None:
    """What the numbers themselves say of their format: of vectors that are otherwise the model's."""
    if distance > max(at_most, 0.02):
        return
    if not (served.view(np.uint32) & 0xFFFF).any():
        _add(result.remarks, "number format: every number is one of bfloat16")
    elif np.array_equal(served.astype(np.float16).astype(np.float32), served):
        _add(result.remarks, "number format: every number is one of float16")
    elif 1e-6 < distance <= at_most:
        _add(result.remarks, f"number format: differences of the size of half precision (median {distance:.1g})")


def _add(texts: list[str], text: str) -> None:
    if text not in texts:
        texts.append(text)


def _right(encoder: Encoder, role: Role) -> Setting:
    return Setting(prompt=encoder.prompt(role) or "", pooling=_ServerLike(encoder).pooling)


def _causes(
    encoder: Encoder, role: Role, right: Setting, texts: list[str], served: Vectors, *, lengths: bool
) -> tuple[Setting, list[str]]:
    """The setting that explains the server's vectors best, and its mistakes in words.

    right: the model's own setting, or what the texts before have shown. lengths: try other maximum lengths, else all
    other mistakes.
    """
    with _server_like(encoder) as run:
        if lengths:
            settings = [right, *(replace(right, max_length=length) for length in run.lengths)]
        else:
            settings = list(_settings(encoder, role, right))
        best, cosine, usual = right, -1.0, -1.0
        for setting in settings:
            cosines = _cosines(run(texts, setting)[:, : served.shape[1]], served)
            near = float(cosines.mean())
            usual = near if setting == right else usual
            if near > cosine + 1e-6:
                best, cosine = setting, near
            if cosines.min() >= 1 - 1e-5:
                break
    if best != right and cosine >= max(EXPLAINED, usual + (1 - usual) / 2):
        return best, list(_differences(encoder, role, right, best))
    if usual > EXPLAINED:  # cut texts, which long texts show better, or another number format
        return right, []
    return right, ["unknown: no mistake that was tried gives the server's vectors; it may serve other weights"]


def _settings(encoder: Encoder, role: Role, right: Setting) -> Iterator[Setting]:
    """The mistakes of short texts, those that change one thing first."""
    other = encoder.prompt("document" if role == "query" else "query") or ""
    prompts = list(dict.fromkeys([right.prompt, "", other, right.prompt * 2]))
    poolings = list(dict.fromkeys([right.pooling, *(POOLINGS if right.pooling else ())]))
    every = [Setting(prompt=p, pooling=m, lowered=low) for p, m, low in product(prompts, poolings, (False, True))]
    return iter(sorted(every, key=lambda s: (s.prompt != right.prompt) + (s.pooling != right.pooling) + s.lowered))


def _differences(encoder: Encoder, role: Role, right: Setting, best: Setting) -> Iterator[str]:
    if best.prompt != right.prompt:
        other = encoder.prompt("document" if role == "query" else "query") or ""
        if best.prompt == right.prompt * 2:
            yield f"prompt: the server adds the {role} prompt {right.prompt!r}, which was sent already: it stands twice"
        elif best.prompt == other and other:
            yield f"prompt: the server reads {role} texts with the other role's prompt {other!r}"
        else:
            yield f"prompt: the server reads {role} texts without the prompt {right.prompt!r}"
    if best.pooling != right.pooling and best.pooling and right.pooling:
        ours = POOLINGS.get(right.pooling, right.pooling)
        yield f"pooling: the server takes {POOLINGS[best.pooling]}, the model {ours}"
    if best.lowered:
        yield "case: the server reads texts in lower case"
    if best.max_length is not None:
        yield f"truncation: the server cuts texts at {best.max_length} tokens, the model at {encoder.max_length}"


class _ServerLike:
    """The model run by sentence-transformers under any setting, without a cache."""

    def __init__(self, encoder: Encoder) -> None:
        from sentence_transformers.sentence_transformer.modules import Pooling

        self._model: SentenceTransformer = encoder.model
        self._poolings = [module for module in encoder.model if isinstance(module, Pooling)]
        mode = self._poolings[0].pooling_mode if len(self._poolings) == 1 else None
        self.pooling = mode if isinstance(mode, str) else None
        most, longest = _positions(encoder.model), encoder.max_length or LONGEST
        self.lengths = [length for length in LENGTHS if length <= min(most, 2 * longest) and length != longest]
        if most not in (*LENGTHS, longest) and most < min(LONGEST, 2 * longest):
            self.lengths.append(most)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], setting: Setting) -> Vectors:
        model: Any = self._model
        for module in self._poolings:
            module.pooling_mode = setting.pooling or module.pooling_mode
        usual = model.max_seq_length
        if setting.max_length is not None:
            model.max_seq_length = setting.max_length
        try:
            written = [setting.prompt + (text.lower() if setting.lowered else text) for text in texts]
            vectors = model.encode(written, prompt="", show_progress_bar=False, batch_size=TEXTS_AT_ONCE)
        finally:
            model.max_seq_length = usual
        return np.asarray(vectors, dtype=np.float32)


@contextmanager
def _server_like(encoder: Encoder) -> Iterator[_ServerLike]:
    """The model to run under other settings; its own are restored."""
    run = _ServerLike(encoder)
    try:
        yield run
    finally:
        for module in run._poolings:
            module.pooling_mode = run.pooling or module.pooling_mode


def _positions(model: SentenceTransformer) -> int:
    """How many tokens the model's position embeddings hold; LONGEST where they set no limit."""
    from ..models.modules import transformers_of

    limits = [
        getattr(module.model.config, "max_position_embeddings", None) for module in transformers_of(model).values()
    ]
    return min([limit for limit in limits if isinstance(limit, int) and limit > 0] + [LONGEST])
