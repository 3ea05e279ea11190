"""The glossary: one word for a thing, in identifiers and in prose, over the library and the command line."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "embedtune").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])

# identifier -> what to say: the noun that the value holds.
IDENTIFIERS = {
    "place": "rank, row, column, index, path or position",
    "places": "ranks, rows, columns, indices, paths or positions",
    "found": "the noun of what was found",
    "said": "the noun, such as message or text",
    "own": "the noun, such as own_negatives",
    "mine": "shard, for the rows of this process",
    "given": "the noun, such as options or value",
    "left": "the noun, such as remaining or kept",
    "theirs": "the noun of what the others hold",
    "turn": "pair",
    "turns": "pairs",
    "qid": "query_id",
    "qids": "query_ids",
    "pid": "doc_id",
    "docno": "doc_id",
    "topk": "k or depth",
    "top_n": "k or depth",
}
# Edges of a box are spatial. A field of Scores holds the columns that were mined for the row.
SPATIAL = {
    "embedtune/demo/emoji.py",
    "embedtune/report/sheet.py",
    "embedtune/data/images.py",
    "embedtune/evaluate/protocols/_images.py",
}
FIELDS = {("embedtune/types.py", "own")}

PHRASES = [
    *("of which", "that which", "whatever", "whichever it is", "below this.", "say which", "came to", "at its turn"),
    *("to be had", "is had", "anew", "a mining", "by whom", "than which", "in which case it"),
]
_PHRASE = re.compile("|".join(rf"\b{re.escape(phrase)}" for phrase in PHRASES), re.IGNORECASE)


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Parameters, variables, fields and names of functions and classes, each where it is defined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name != "mine":  # `mine` is a verb there
            yield node.lineno, node.name


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Comments, docstrings and all other texts, f-strings included."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            yield token.start[0], " ".join(token.string.split())


def problems(name: str, source: str) -> list[str]:
    lines = []
    for line, word in identifiers(ast.parse(source)):
        bare = word.strip("_")
        exempt = (bare == "left" and name in SPATIAL) or (name, bare) in FIELDS
        if bare in IDENTIFIERS and not exempt:
            lines.append(f"{name}:{line}: identifier {word!r}; say {IDENTIFIERS[bare]}")
    for line, text in prose(source):
        lines += [f"{name}:{line}: phrase {match[0]!r}" for match in _PHRASE.finditer(text)]
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words_are_those_of_the_glossary(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    lines = problems(name, path.read_text(encoding="utf-8"))
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(place): ...", "identifier 'place'"),
        ("said = 1", "identifier 'said'"),
        ("for _found in ():\n    pass", "identifier '_found'"),
        ('"""The half of which one is kept."""', "phrase 'of which'"),
        ("x = 1  # whatever it is", "phrase 'whatever'"),
        ("f'{x} or whatever'", "phrase 'whatever'"),
        ('Option(help="Below this.")', "phrase 'Below this.'"),
        ("def mine(): ...", ""),
        ("x = f(left_out=1)", ""),
    ],
)
def test_the_check_sees_each_kind_of_word(source: str, expected: str) -> None:
    lines = problems("embedtune/unwritten.py", source)
    assert [expected in line for line in lines] == ([True] if expected else [])
