"""Runs command lines in a process without a network: every attempt to connect is noted and refused.

python refusing_network.py NOTES VERB ... [-- VERB ...]
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

os.environ.pop("HF_HUB_OFFLINE", None)
os.environ["HF_HUB_ETAG_TIMEOUT"] = "1"


def refuse(notes: Path) -> None:
    def refused(*arguments: Any, **_: Any) -> Any:
        with notes.open("a") as file:
            file.write(f"{[str(argument) for argument in arguments]}\n")
        raise OSError("no network here")

    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, refused)
    socket.getaddrinfo = refused


if __name__ == "__main__":
    refuse(Path(sys.argv[1]))
    from embedtune_cli.app import run

    lines: list[list[str]] = [[]]
    for argument in sys.argv[2:]:
        if argument == "--":
            lines.append([])
        else:
            lines[-1].append(argument)
    sys.exit(max(run(line) for line in lines))
