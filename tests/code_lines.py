"""Counts the library's code lines: no blank lines, comments or docstrings.

python tests/code_lines.py            each package, and the library without its methods' files
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "embedtune"
METHODS = "methods' files"
WITHOUT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def is_method_file(path: Path) -> bool:
    """Whether a file stands in a family's folder, `embedtune/methods/FAMILY/`."""
    parts = path.relative_to(LIBRARY).parts
    return parts[0] == "methods" and len(parts) == 3


def code_lines(source: str) -> int:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in WITHOUT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def main() -> None:
    counts: Counter[str] = Counter()
    for path in sorted(LIBRARY.rglob("*.py")):
        part = METHODS if is_method_file(path) else path.relative_to(LIBRARY).parts[0]
        counts[part] += code_lines(path.read_text(encoding="utf-8"))
    for part, count in counts.items():
        print(f"{count:6,} {part}")
    print(f"{sum(counts.values()) - counts[METHODS]:6,} without the methods' files")


if __name__ == "__main__":
    main()
