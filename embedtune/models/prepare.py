"""Prepares items for a model: texts are tokenised without padding, images opened and scaled."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from ..data.images import identity, open_images
from ..errors import InputError
from ..files import fingerprint_of
from ..types import Item, Role
from .attention import takes_flat
from .modules import first_modules, processing_of, transformers_of
from .prepared import KEPT, KEPT_TEXTS, Kept, Prepared, collated, separated

if TYPE_CHECKING:
    from PIL.Image import Image
    from sentence_transformers import SentenceTransformer

TEXTS_AT_ONCE = 64  # the tokenizer pads its batch; small batches waste little
IMAGES_AT_ONCE = 32  # opened before the first is scaled
INSTRUCTION = "{instruction}"  # in a prompt: an item's instruction goes here
READ_IMAGES = (
    "CLIP and SigLIP models read either, Qwen2-VL, Qwen2.5-VL and Qwen3-VL both at once, and model.compose makes one "
    "that reads either"
)
ALONE = Lock()  # a tokenizer that is used on two threads at once refuses
SET_BY_SAVING = {"_name_or_path", "transformers_version", "architectures", "dtype", "use_cache"}
Kind = tuple[str, ...]  # ("text",), ("image",) or both, sorted: sentence-transformers' names of modalities


def role_prompt(model: SentenceTransformer, role: Role) -> str | None:
    """The text before each item of a role, as encode_query and encode_document use it."""
    return model.prompts.get(role) or None


class Preparer:
    """Prepares items for a model, and makes features of chunks. Prepared images and texts are kept by content."""

    def __init__(self, model: SentenceTransformer, name: str) -> None:
        self.model, self.name = model, name

    def __call__(self, items: Sequence[Item], role: Role) -> list[Prepared]:
        """The items ready for the model, in order. Raises InputError for a broken image, and for an item that the model
        cannot take."""
        self.refuse_unread(items)
        keys = [self.key(item, role) for item in items]
        ready = {row: kept for row, key in enumerate(keys) if (kept := _kept(items[row]).get(key)) is not None}
        fresh = [row for row in range(len(items)) if row not in ready]
        prompts = {row: self._prompt(items[row], role) for row in fresh}
        for prompt in dict.fromkeys(prompts.values()):
            texts = [row for row in fresh if prompts[row] == prompt and items[row].image is None]
            for batch in _batches(texts, TEXTS_AT_ONCE):
                ready.update(zip(batch, self._texts([items[row] for row in batch], prompt, role), strict=True))
        images = {row: image for row in fresh if (image := items[row].image) is not None}
        for batch in _batches(list(images), IMAGES_AT_ONCE):
            for row, picture in zip(batch, open_images([images[row] for row in batch]), strict=True):
                ready[row] = self._pictured(items[row], picture, prompts[row], role)
        for row in fresh:
            _kept(items[row]).put(keys[row], ready[row])
        return [ready[row] for row in range(len(items))]

    def features(self, chunk: Sequence[Prepared], role: Role) -> dict[str, Any]:
        """A chunk of prepared items as the model's features."""
        if chunk[0].raw is not None:
            inputs, prompt = [item.raw for item in chunk], dict(chunk[0].constant)["prompt"]
            return self._preprocess(inputs, prompt, role)
        return collated(chunk, getattr(self.model.tokenizer, "pad_token_id", None) or 0)

    def _preprocess(self, inputs: list[Any], prompt: str | None, role: Role) -> dict[str, Any]:
        with ALONE:
            return cast("dict[str, Any]", self.model.preprocess(inputs, prompt=prompt, task=role))

    def _texts(self, items: Sequence[Item], prompt: str | None, role: Role) -> list[Prepared]:
        # Declared as text, because a model of images would take some texts for the address of an image and fetch it.
        inputs: list[Any] = [{"text": item.content} if self._reads_images else item.content for item in items]
        prepared = separated(self._preprocess(inputs, prompt, role), len(items), self._width)
        constant = (("prompt", prompt),)
        return prepared or [
            Prepared(raw=text, constant=constant, length=len(item.content) // 4 + 1)
            for text, item in zip(inputs, items, strict=True)
        ]

    def _pictured(self, item: Item, picture: Image, prompt: str | None, role: Role) -> Prepared:
        """Alone, because an image may have any number of the rows of its batch."""
        content = {"image": picture, "text": item.content} if item.content else {"image": picture}
        try:
            prepared = separated(self._preprocess([content], prompt, role), 1, self._width)
        except (ValueError, ImportError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"model {self.name}: cannot take item {item.id!r} ({item.image}): {reason}") from error
        if prepared is None:
            raise InputError(f"model {self.name}: takes images in a form that is not known here; {READ_IMAGES}")
        return prepared[0]

    @cached_property
    def _reads_images(self) -> bool:
        return bool(self.model.supports("image"))

    @property
    def _width(self) -> int | None:
        return cast("int | None", self.model.max_seq_length)

    def reads(self, kind: Kind) -> bool:
        """Whether the model takes such items."""
        return bool(self.model.supports(kind if len(kind) > 1 else kind[0]))

    def refuse_unread(self, items: Iterable[Item]) -> None:
        """Raises InputError for an item of a kind that the model does not take."""
        for kind, item in {kind_of(item): item for item in items}.items():
            if self.reads(kind):
                continue
            what = " and ".join("an image" if part == "image" else "text" for part in kind)
            both = "text or an image, not both" if len(kind) > 1 else "no text"
            reads = both if self._reads_images else "text only"
            raise InputError(f"model {self.name}: reads {reads}, and item {item.id!r} has {what}; {READ_IMAGES}")

    def _prompt(self, item: Item, role: Role) -> str | None:
        """The text before an item: the role's prompt, with the item's instruction in it or in its stead."""
        prompt = role_prompt(self.model, role)
        if prompt is not None and INSTRUCTION in prompt:
            if item.instruction is None:
                raise InputError(f"item {item.id!r} has no instruction, and the {role} prompt asks for one: {prompt!r}")
            return prompt.replace(INSTRUCTION, item.instruction)
        return item.instruction or prompt

    @cached_property
    def _document_tokenizer(self) -> Any:
        """The tokenizer of documents. Raises InputError for a model without one that knows where tokens start."""
        modules = first_modules(self.model)
        tokenizer = getattr(modules.get("document") or next(iter(modules.values())), "tokenizer", None)
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(f"model {self.name}: its tokenizer does not say where tokens start, so no text is split")
        return tokenizer

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Where each token of each text starts and ends, in characters; whole texts, without special tokens."""
        with ALONE:
            encoded = self._document_tokenizer(
                list(texts), add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
            )
        return cast("list[list[tuple[int, int]]]", encoded["offset_mapping"])

    def room(self) -> int | None:
        """How many tokens of a document's content the model reads, beside its prompt and special tokens; None: any."""
        if self._width is None:
            return None
        prompt = self.offsets([role_prompt(self.model, "document") or ""])[0]
        return self._width - int(self._document_tokenizer.num_special_tokens_to_add()) - len(prompt)

    @cached_property
    def processing(self) -> str:
        """A fingerprint of everything that an item's features depend on besides the item."""
        return fingerprint_of(self.readers, str(self._width), str(self.model.modalities), str(takes_flat(self.model)))

    @cached_property
    def architecture(self) -> str:
        """The transformers' configurations, without what saving a model changes in them."""
        configs = [module.config.to_dict() for module in transformers_of(self.model).values()]
        return json.dumps([_without(config, SET_BY_SAVING) for config in configs], sort_keys=True, default=str)

    @cached_property
    def readers(self) -> str:
        """The description of the model's tokenizers and image processors. They never change; a large one takes time."""
        return processing_of(self.model)

    def key(self, item: Item, role: Role) -> Hashable:
        """Equal for items whose features are the same."""
        image = identity(item.image) if item.image is not None else None
        content = fingerprint_of(item.content)  # a fingerprint, so that a corpus's texts are not kept with its tokens
        return self.processing, role, self._prompt(item, role), content, image


def _kept(item: Item) -> Kept:
    return KEPT if item.image is not None else KEPT_TEXTS


def _without(value: Any, keys: set[str]) -> Any:
    """A configuration without these keys, at any depth."""
    if not isinstance(value, dict):
        return value
    return {key: _without(inner, keys) for key, inner in value.items() if key not in keys}


def _batches(rows: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def kind_of(item: Item) -> Kind:
    if item.image is None:
        return ("text",)
    return ("image", "text") if item.content else ("image",)
