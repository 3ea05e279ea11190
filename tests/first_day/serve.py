"""Serves a model folder by sentence-transformers alone, as OpenAI's /v1/embeddings: python serve.py MODEL URL_FILE."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

MODEL = SentenceTransformer(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({"data": [{"id": "served"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        rows = MODEL.encode(request["input"]).tolist()
        data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
        self.answer({"model": request["model"], "data": data})

    def answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with HTTPServer(("127.0.0.1", 0), Handler) as server:
    written = Path(sys.argv[2]).with_suffix(".part")
    written.write_text(f"http://127.0.0.1:{server.server_port}/v1/embeddings")
    written.rename(sys.argv[2])
    server.serve_forever()
