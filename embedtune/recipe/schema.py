"""The recipe's keys, as dataclasses. The comment at a key is its documentation; `embedtune recipes keys` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo, with_config
from pydantic_core import PydanticCustomError

from .. import methods
from ..errors import InputError
from ..types import Role
from .measures import parse

_strict = with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
AboveZero = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
RECORDED = "recorded"  # in the validation's context: a run's recipe, whose methods may be absent here


def problems_error(problems: list[tuple[str, str]]) -> PydanticCustomError:
    """One error for several problems, as (key, sentence); an empty key is the place itself."""
    return PydanticCustomError("problems", "{count} problems", {"count": len(problems), "problems": problems})


def _measure(value: str) -> str:
    """The measure under embedtune's own name. A misspelt one must not cost a training."""
    try:
        return parse([value])[0]
    except InputError as error:
        raise problems_error([("", str(error))]) from None


Measure = Annotated[str, AfterValidator(_measure)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "4bit"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A method with its options, and its weight where several losses are summed."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0


def _choice(family: str) -> BeforeValidator:
    def read(value: Any, info: ValidationInfo) -> Any:
        mapping = {"name": value} if isinstance(value, str) else value
        if isinstance(mapping, Chosen):
            return mapping
        if not isinstance(mapping, Mapping) or not isinstance(mapping.get("name"), str):
            expected = f"a method's name, or {{name: METHOD, option: value, ...}} (`embedtune methods {family}`)"
            raise problems_error([("", f"expected {expected}, got {value!r}")])
        options = {key: option for key, option in mapping.items() if key not in ("name", "weight")}
        weight = mapping.get("weight", 1.0)
        recorded = bool(info.context and info.context.get(RECORDED))
        problems = [] if recorded else methods.check(family, mapping["name"], options)
        if family != "loss" and "weight" in mapping:
            problems.append(("weight", "only a loss has a weight"))
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            problems.append(("weight", f"expected a number, got {weight!r}"))
        if problems:
            raise problems_error(problems)
        return Chosen(name=mapping["name"], options=options, weight=float(weight))

    return BeforeValidator(read)


def _listed(value: Any) -> Any:
    """A single value may stand where a list is expected."""
    return value if isinstance(value, list) else [value]


Miner = Annotated[Chosen, _choice("mining")]
Filter = Annotated[Chosen, _choice("filtering")]
Sampler = Annotated[Chosen, _choice("sampling")]
Batcher = Annotated[Chosen, _choice("batching")]
Maker = Annotated[Chosen, _choice("synthesis")]
Weighting = Annotated[Chosen, _choice("weighting")]
Loss = Annotated[Chosen, _choice("loss")]


PissaSteps = Annotated[str, Field(pattern=r"^pissa_niter_[1-9]\d{0,2}$")]


@_strict
@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adaptation (arXiv 2106.09685) in place of full fine-tuning."""

    rank: Count = 16  # The adapter's rank.
    alpha: AboveZero = 32.0  # The adapter's output is multiplied by alpha / rank.
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # Dropout on the adapter's input.
    # The modules that are adapted. auto: the linear layers of attention and MLP. all-linear: every linear layer, as in
    # peft. A list: the modules whose names end so.
    target_modules: Literal["auto", "all-linear"] | Annotated[list[str], Field(min_length=1)] = "auto"
    # Adapt the modules of these layers only, counted from 0. Absent: of all layers.
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    # Modules whose names end so are trained whole and saved with the adapter, such as a pooler or the embeddings.
    modules_to_save: list[str] = field(default_factory=list)
    rslora: bool = False  # Multiply by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732): for high ranks.
    dora: bool = False  # Learn each matrix's direction and magnitude apart (DoRA, arXiv 2402.09353). Slower.
    # How the adapter begins, by peft's names. true: at 0. pissa (arXiv 2404.02948) and olora (2406.01775) take parts of
    # the base's weights; their saved adapter is the difference to the base, of twice the rank. pissa_niter_16: fast.
    init: Literal[True, "gaussian", "pissa", "olora"] | PissaSteps = True

    @property
    def moves_base(self) -> bool:
        """Whether the adapter begins as a part of the base's weights, which are changed by as much."""
        return isinstance(self.init, str) and self.init.startswith(("pissa", "olora"))


@_strict
@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Texts in front of each query and document."""

    query: str | None = None  # In front of every query. Absent: the model's own prompt.
    document: str | None = None  # In front of every document. Absent: the model's own prompt.

    def of(self, role: Role) -> str | None:
        return self.query if role == "query" else self.document


@_strict
@dataclass(frozen=True, kw_only=True)
class Compose:
    """A text encoder and an image encoder (its towers), each with a projection into one space."""

    text: str  # The text tower: a sentence-transformers model, or a bare checkpoint with model.pooling.
    image: str  # The image tower: a vision model of transformers, or package:MODULE/PATH.
    dimension: Count = 256  # The size of the common space.
    image_size: Count | None = None  # Pixels a side. Absent: the image processor's own size.
    image_pooling: Literal["mean", "cls"] = "mean"  # How the image tower's patches become one vector.
    # frozen: only the projections are trained, on cached outputs of the towers. trained: the towers too, or their
    # adapters with model.lora.
    towers: Literal["frozen", "trained"] = "trained"


@_strict
@dataclass(frozen=True, kw_only=True)
class Passages:
    """Longer documents are split; the passage that scores best stands for its document."""

    tokens: Annotated[int, Field(ge=16)]  # Tokens of a passage at most, its document's title included.
    stride: Annotated[int, Field(ge=0)] = 0  # Tokens that neighbouring passages share, as transformers' stride.

    def __post_init__(self) -> None:
        if self.stride >= self.tokens:
            raise ValueError(f"stride is the tokens that neighbouring passages share: expected less than {self.tokens}")


@_strict
@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that is fine-tuned."""

    name: str | None = None  # A folder, a GGUF file, a hub id (org/name@revision), or package:MODULE/PATH.
    compose: Compose | None = None  # A model made of two towers, in place of a name.
    max_length: Count | None = None  # Tokens of a text at most. Absent: the model's own limit.
    passages: Passages | None = None  # Split longer documents. Absent: they are cut at max_length.
    min_pixels: Count | None = None  # Pixels of an image at least, for models that take any size (Qwen-VL).
    max_pixels: Count | None = None  # Pixels of an image at most, for models that take any size.
    pooling: Literal["mean", "cls", "lasttoken"] | None = None  # The pooling of a bare transformers checkpoint.
    # Behind each text, also where that is cut: what the last token of a decoder reads, as "</s>" or " in one word:".
    suffix: str | None = None
    lora: Lora | None = None  # Train an adapter. Absent: full fine-tuning.
    # The number format of weights that stay frozen. auto: the checkpoint's, where the precision computes in it, else
    # float32. 4bit: NF4 of bitsandbytes. Weights that are trained are float32.
    dtype: Dtype = "auto"
    prompts: Prompts = field(default_factory=Prompts)
    dropout: Literal["off", "model"] = "off"  # model: as in the model's config; off is about twice as fast.
    gradient_checkpointing: bool = False  # Compute activations twice instead of keeping them: less memory, slower.
    # How attention is computed: eager, sdpa, flash_attention_2 (bf16 on a GPU, texts without padding), or another name
    # that transformers knows. Absent: the choice of transformers.
    attention: str | None = None
    # Tokens that are computed at once, padding included: in encoding, and at most so many in training. It decides
    # memory and speed, not results. Absent: 2,048 on a CPU, 32,768 on a CUDA GPU, 8,192 on MPS; twice as many to encode
    # in bf16 or fp16. Where the memory does not hold them, they are halved.
    chunk_tokens: Count | None = None
    trust_remote_code: bool = False  # Run Python code that the model's repository brings.
    # Patterns of names, such as pooler.*, of weights that the checkpoint lacks and that are drawn at random. Another
    # weight that it lacks is an error.
    new_weights: Annotated[list[str], BeforeValidator(_listed)] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.name is None) == (self.compose is None):
            raise ValueError("expected either name or compose, and not both")

    @property
    def frozen(self) -> bool:
        """Whether training leaves the model's own weights as they are: it trains an adapter, or projections alone."""
        return self.lora is not None or (self.compose is not None and self.compose.towers == "frozen")

    @property
    def in_training(self) -> Model:
        """The model as training loads it: in float32 unless its weights stay frozen."""
        return self if self.frozen else replace(self, dtype="float32")

    @property
    def label(self) -> str:
        """How the model is named where it was not loaded from one place."""
        return self.name or (f"{self.compose.text} + {self.compose.image}" if self.compose else "")


@_strict
@dataclass(frozen=True, kw_only=True)
class Validation:
    """Training queries that are held out to choose the best checkpoint. A number stands for the share."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1  # The share of the training queries.
    documents: Count | None = None  # Documents that are ranked: the positives and a seeded sample. Absent: all.
    # Draws the queries and the documents. Absent: train.seed. `ablate` takes one seed for all of a cell's runs.
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


def _validation(value: Any) -> Any:
    return {"share": value} if isinstance(value, float) else value


@_strict
@dataclass(frozen=True, kw_only=True)
class Data:
    """The training data."""

    # A dataset folder, or any form that `embedtune data convert` reads; or a list of them. reversed:DIR swaps queries
    # and documents.
    train: str | list[str]
    split: str = "train"  # The split of the judgements that is trained on.
    validation: Annotated[Validation | None, BeforeValidator(_validation)] = None
    # each: one pair for each positive. all: one pair a query, with all its positives. A number: one pair a query, with
    # so many positives drawn again every epoch.
    positives: Literal["each", "all"] | Count = "each"
    broken_images: Share = 0.01  # The share of unreadable images that is left out; more are refused.


@_strict
@dataclass(frozen=True, kw_only=True)
class Refresh:
    """The student mines again while it trains (ANCE, arXiv 2007.00808, synchronous)."""

    every: Literal["epoch"] | Count  # epoch, or a number of steps.


@_strict
@dataclass(frozen=True, kw_only=True)
class Replace:
    """A negative that has become easy gives way to a later candidate of its query (Conan, arXiv 2408.15710).

    The student's scores decide, in the steps that train on the query; for cosines. The defaults are Conan's version 1;
    version 2 (2509.12892) has fallen 1.2, below 0.7, easy 0.4 and every 1. Read second-hand.
    """

    fallen: Annotated[float, Field(ge=1)] = 1.15  # Replace where the mined score is so many times today's score
    below: AboveZero = 0.8  # and today's score is smaller than this.
    easy: float | None = None  # Replace, too, where the mined score was below this number.
    every: Count = 100  # Steps until a query is checked again.
    start: Annotated[int, Field(ge=0)] = 10  # Candidates that are skipped; each replacement skips one set more.


@_strict
@dataclass(frozen=True, kw_only=True)
class Live:
    """Each step's queries search all documents, as the base model embeds them (ADORE, arXiv 2104.08051).

    Only the query side is trained; the saved model has two towers. The loss `lambda_rank` is meant for it.
    """

    depth: Count = 200  # Documents that each query retrieves.


@_strict
@dataclass(frozen=True, kw_only=True)
class Negatives:
    """Where negatives come from, and which are kept."""

    mining: Annotated[list[Miner], BeforeValidator(_listed)] = field(default_factory=list)  # Retrieve candidates.
    # Drop false negatives, among mined candidates and in the batch.
    filtering: Annotated[list[Filter], BeforeValidator(_listed)] = field(default_factory=list)
    sampling: Sampler = Chosen(name="top")  # Choose among the candidates that the filters keep.
    # A model whose scores decide and order: an encoder, or cross-encoder:NAME (for mined candidates only). Absent: the
    # scores of the model itself.
    teacher: str | None = None
    # A query that keeps no mined negative. train: it trains on the batch's documents. refuse: the run is refused.
    empty: Literal["train", "refuse"] = "train"
    refresh: Refresh | None = None  # Absent: mined once, by the untouched model.
    replace: Replace | None = None  # Absent: the sampling chooses again every epoch.
    live: Live | None = None  # In place of mining.

    def chosen(self) -> list[tuple[str, Chosen]]:
        """The methods that mine, filter and sample, with their families; those within a union of miners included."""
        miners = [*self.mining, *self.inner_miners()]
        pairs = [*(("mining", miner) for miner in miners), *(("filtering", chosen) for chosen in self.filtering)]
        return [*pairs, ("sampling", self.sampling)]

    def inner_miners(self) -> list[Chosen]:
        """The miners that a union of miners names."""
        return [source for miner in self.mining for source in _inner(miner.options)]


@_strict
@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop where validation no longer improves."""

    patience: Count = 3  # Validations in a row without a better value.


@_strict
@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """A first stage that trains the projections alone, on cached outputs of the towers."""

    epochs: AboveZero = 20.0  # Epochs of this stage.
    learning_rate: AboveZero = 1e-3  # The learning rate of this stage, with its own warm-up.


@_strict
@dataclass(frozen=True, kw_only=True)
class Backward:
    """Selective backward: the second pass of gradient caching skips items with next to no gradient."""

    keep: Annotated[float, Field(gt=0, lt=1)] = 0.99  # The share of a batch's squared gradient norm that is kept.


@_strict
@dataclass(frozen=True, kw_only=True)
class Train:
    """The optimisation."""

    projections_first: FirstStage | None = None  # Before the epochs, with model.compose.
    epochs: AboveZero = 1.0  # Passes over the pairs; a fraction is allowed.
    max_steps: Count | None = None  # Stop after so many steps, if the epochs have more.
    batch_size: Count = 32  # Queries of a batch, over all processes. It decides what is learned.
    # Gradient caching (arXiv 2101.06983): items encoded at once, counted at the longest item's length; at most
    # model.chunk_tokens. It decides memory, not results. Absent: the whole batch at once, if the memory holds it.
    chunk_size: Count | None = None
    selective_backward: Backward | None = None  # Absent: every item is in the second pass.
    accumulate: Count = 1  # Batches whose gradients are averaged into one step.
    learning_rate: AboveZero = 2e-5  # The largest learning rate.
    weight_decay: NotNegative = 0.0  # AdamW's decay of weights towards 0.
    warmup: Share | Count = 0.1  # Steps until the largest learning rate: a share of all steps, or a number of steps.
    schedule: Literal["linear", "cosine", "constant"] = "linear"  # The learning rate after the warm-up.
    clip: AboveZero | None = 1.0  # The largest gradient norm. null: not clipped.
    precision: Precision = "auto"  # auto: bf16 where the hardware computes it natively, else fp32.
    # Share out weights, gradients and the optimizer's state over the processes of a launch (FSDP2), for full
    # fine-tuning of what one device cannot hold.
    shard: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # The seed of every random choice.
    validate_every: Count | None = None  # Steps between validations. Absent: an epoch.
    checkpoint_every: Count | None = None  # Steps between checkpoints. Absent: an epoch.
    early_stopping: EarlyStopping | None = None
    track: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list)  # Log to these trackers too.


@_strict
@dataclass(frozen=True, kw_only=True)
class Guard:
    """What tuning may cost on each out-of-domain set, against the untouched model. Beyond it the run exits with 1."""

    largest_drop: NotNegative = 0.01  # How far the measure's mean may fall.
    # The share of queries that were right (0.5 or more) and may no longer be (BCWI). Absent: not limited.
    largest_flips: Share | None = None
    measure: Measure | None = None  # The measure that must not fall. Absent: evaluate.measure.
    # Mix base and tuned weights (WiSE-FT), by the alpha that keeps the budget on queries that are not reported.
    interpolate: bool = False
    # The shares of the tuned weights that are tried.
    alphas: Annotated[list[Share], Field(min_length=1)] = field(default_factory=lambda: [n / 10 for n in range(11)])
    # linear: every weight alike. fisher: each weight by its importance to either model (BCWI).
    weights: Literal["linear", "fisher"] = "linear"


@_strict
@dataclass(frozen=True, kw_only=True)
class Distill:
    """The base model's own scores on unlabelled text, held by listwise KL (arXiv 2502.19712) while training."""

    data: str  # A folder with corpus.jsonl and perhaps queries.jsonl; judgements are not read.
    weight: AboveZero = 1.0  # The weight of this loss.
    batch_size: Count = 16  # Queries a step; documents where the folder has no queries.
    candidates: Count = 4  # The base model's best documents for each query.
    temperature: AboveZero = 0.05  # Divides the scores of both models.


@_strict
@dataclass(frozen=True, kw_only=True)
class StayClose:
    """What keeps the tuned model near the base model while it learns. Everything is off by default."""

    distill: Distill | None = None
    pull: NotNegative = 0.0  # Decay towards the base weights in place of 0 (L2-SP, arXiv 1802.01483).
    freeze_layers: Annotated[int, Field(ge=0)] = 0  # The lowest layers that are not trained, with the embeddings.
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # Each layer's learning rate, as a share of the next one's.


@_strict
@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """What base and tuned model are measured on."""

    # Datasets that the model was tuned for, each DIR or DIR:split. judged:DIR ranks only documents that the split
    # judges.
    in_domain: list[str] = field(default_factory=list)
    out_of_domain: list[str] = field(default_factory=list)  # Datasets that the model was not tuned for.
    measure: Measure = "nDCG@10"  # The measure that chooses the best checkpoint.
    measures: list[Measure] = field(default_factory=lambda: ["nDCG@10", "R@100", "RR@10"])  # Measures to report.
    # Also report by slices of the queries: by a column of queries.jsonl or of its metadata, or by length (in words).
    slices: Annotated[list[str], BeforeValidator(_listed)] = field(default_factory=lambda: ["language"])
    bm25: bool = True  # Measure BM25 as well, where queries and documents are texts. It keeps a corpus in memory.
    # The precision of the evaluation. In bf16 and fp16 the weights of a checkpoint of that format stay in it.
    precision: Precision = "fp32"
    guard: Guard | None = None


@_strict
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run, complete."""

    version: Literal[1]  # The version of these keys.
    model: Model
    data: Data
    # Folders with methods of your own, as DIR/weighting/NAME.py, inside the recipe's folder.
    methods: Annotated[list[str], BeforeValidator(_listed)] = field(default_factory=list)
    negatives: Negatives = field(default_factory=Negatives)
    batching: Batcher = Chosen(name="unique")  # Which queries share a batch.
    # Make negatives: of texts, or of vectors.
    synthesis: Annotated[list[Maker], BeforeValidator(_listed)] = field(default_factory=list)
    # How much each negative counts.
    weighting: Annotated[list[Weighting], BeforeValidator(_listed)] = field(default_factory=list)
    # The loss, or several with a weight each.
    loss: Annotated[list[Loss], BeforeValidator(_listed)] = field(
        default_factory=lambda: [Chosen(name="infonce", options={"temperature": 0.05})]
    )
    # Every loss also on these first dimensions of the embeddings, normalised again (Matryoshka, arXiv 2205.13147).
    matryoshka: list[Count] = field(default_factory=list)
    train: Train = field(default_factory=Train)
    stay_close: StayClose = field(default_factory=StayClose)
    evaluate: Evaluate = field(default_factory=Evaluate)

    def chosen(self) -> list[tuple[str, Chosen]]:
        """Every method that the recipe names, with its family."""
        pairs = [*self.negatives.chosen(), ("batching", self.batching)]
        pairs += [("synthesis", chosen) for chosen in self.synthesis]
        pairs += [("weighting", chosen) for chosen in self.weighting]
        return pairs + [("loss", chosen) for chosen in self.loss]


def passages_of_flags(tokens: int | None, stride: int | None) -> Passages | None:
    """The flags --passages and --stride as one setting. Raises InputError for a stride alone, or one too large."""
    if tokens is None:
        if stride is not None:
            raise InputError("--stride has no effect without --passages TOKENS")
        return None
    try:
        return Passages(tokens=tokens, stride=stride or 0)
    except ValueError as error:
        raise InputError(f"--{error}") from None


def _inner(options: Mapping[str, Any]) -> list[Chosen]:
    """The methods within a method's options, at any depth."""
    parts = [part for value in options.values() if isinstance(value, list) for part in value if isinstance(part, dict)]
    named = []
    for part in parts:
        if isinstance(part.get("name"), str):
            inner = {key: value for key, value in part.items() if key not in ("name", "quota")}
            named += [Chosen(name=part["name"], options=inner), *_inner(inner)]
    return named


def plain(value: Any) -> Any:
    """A recipe, or a part of it, as plain values, methods with their options inline."""
    if isinstance(value, Chosen):
        weight = {} if value.weight == 1.0 else {"weight": value.weight}
        return {"name": value.name, **weight, **value.options}
    if is_dataclass(value):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    return [plain(part) for part in value] if isinstance(value, list) else value
