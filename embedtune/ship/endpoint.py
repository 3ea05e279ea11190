"""A server of embeddings, asked over HTTP: OpenAI's `/v1/embeddings` and Text Embeddings Inference's `/embed`."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from ..errors import InputError, reason
from ..types import Role

TEXTS_AT_ONCE = 16  # texts in one request; servers refuse large ones
SECONDS = 300  # before a request is given up
MOST_BYTES = 512 * 2**20  # of one answer


class Refused(InputError):
    """A request that the server answered with an error of the client's, such as a text that is too long."""


@dataclass(kw_only=True)
class Endpoint:
    """Where a server answers.

    url: ends in `/embeddings` (OpenAI's protocol: vLLM, infinity, llama.cpp, TEI) or in `/embed` (TEI's own).
    served_name: the model's name on the server; None: the only one that the server lists.
    key_variable: the environment variable that holds the server's key; None: no key is sent.
    adds_prompts: whether the server puts the prompts before texts itself; TEI is then told the prompt's name.
    """

    url: str
    served_name: str | None = None
    key_variable: str | None = None
    adds_prompts: bool = False
    _headers: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises InputError for a URL of neither protocol, and for a variable that is not set."""
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/")
        if parts.scheme not in ("http", "https") or not path.endswith(("/embeddings", "/embed")):
            raise InputError(
                f"--endpoint {self.url}: expected a whole URL, as in http://localhost:8000/v1/embeddings (OpenAI's "
                "protocol) or http://localhost:8080/embed (TEI)"
            )
        self._headers = {"Content-Type": "application/json"}
        if self.key_variable is not None:
            if not os.environ.get(self.key_variable):
                raise InputError(f"--key-variable {self.key_variable}: the environment variable is not set")
            self._headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        if self.tei and self.served_name is not None:
            raise InputError("--served-name has no effect with /embed, whose server holds one model")

    @property
    def tei(self) -> bool:
        return urlsplit(self.url).path.rstrip("/").endswith("/embed")

    def embed(self, texts: Sequence[str], role: Role, prompt: str | None) -> npt.NDArray[np.float32]:
        """(n, H) float32, in the texts' order. prompt: the model's text before each item of this role.

        Raises Refused where the server refuses a request, and InputError where it cannot be reached, and for an answer
        that holds no vector of finite numbers for each text.
        """
        sent = list(texts) if self.adds_prompts or not prompt else [prompt + text for text in texts]
        rows = [
            row
            for start in range(0, len(sent), TEXTS_AT_ONCE)
            for row in self._answer(sent[start : start + TEXTS_AT_ONCE], role if prompt else None)
        ]
        if len({len(row) for row in rows}) > 1:
            raise InputError(f"{self.url}: answered with vectors of different lengths")
        vectors = np.array(rows, dtype=np.float32)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise InputError(f"{self.url}: answered with numbers that are not finite")
        return vectors

    def _answer(self, texts: list[str], role: Role | None) -> list[list[float]]:
        if self.tei:
            named = {"prompt_name": role} if self.adds_prompts and role is not None else {}
            answer = self._send(self.url, {"inputs": texts, "truncate": True, **named})
        else:
            request = {"input": texts, "model": self._name(), "encoding_format": "float"}
            answer = self._send(self.url, request)
        try:
            if not self.tei:
                ordered = sorted(answer["data"], key=lambda entry: entry["index"])
                answer = [entry["embedding"] for entry in ordered]
            rows = [[float(number) for number in row] for row in answer]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{self.url}: did not answer with embeddings: {str(answer)[:80]}") from None
        if len(rows) != len(texts):
            raise InputError(f"{self.url}: answered with {len(rows)} vectors for {len(texts)} texts")
        return rows

    def _name(self) -> str:
        """The model's name on the server. Raises InputError where the server does not list exactly one."""
        if self.served_name is None:
            listing = self.url.rstrip("/").removesuffix("/embeddings") + "/models"
            try:
                names = [str(entry["id"]) for entry in self._send(listing, None)["data"]]
            except (InputError, KeyError, TypeError):
                names = []
            if len(names) != 1:
                listed = f"lists {', '.join(names)}" if names else "lists no model"
                raise InputError(f"{listing}: {listed}; name the served one with --served-name")
            (self.served_name,) = names
        return self.served_name

    def _send(self, url: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                text = response.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            message = " ".join(error.read(2000).decode("utf-8", "replace").split())[:200]
            kind = Refused if 400 <= error.code < 500 else InputError
            raise kind(f"{url}: answered {error.code} {error.reason}: {message}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{url}: cannot be asked: {reason(error)}") from None
        if len(text) > MOST_BYTES:
            raise InputError(f"{url}: answered with more than {MOST_BYTES // 2**20} MB")
        try:
            return json.loads(text)
        except ValueError:
            raise InputError(f"{url}: did not answer with JSON: {text[:80]!r}") from None
