from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedtune.demo.python_functions import make_functions, make_prose
from embedtune.errors import InputError


def rows(path: Path) -> dict[str, dict[str, str]]:
    return {row["_id"]: row for row in map(json.loads, path.read_text().splitlines())}


def judged(folder: Path, split: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (folder / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]:
        query_id, doc_id, _ = line.split("\t")
        found.setdefault(query_id, set()).add(doc_id)
    return found


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Twelve modules with a function each; `one` and `two` hold the same code; and what must be left out."""
    folder = tmp_path / "library"
    (folder / "test").mkdir(parents=True)
    for n in range(12):
        docstring = f'"""Add the numbers of case {n}.\n\n    More.\n    """'
        body = f"{docstring}\n    total = a + b\n    return total * {n}\n"
        (folder / f"m{n}.py").write_text(f"def add{n}(a, b):\n    {body}")
    (folder / "one.py").write_text('def up(x):\n    """Count one step upwards."""\n    y = x + 1\n    return y\n')
    method = 'def next(x):\n        """Go to the following number."""\n        y = x + 1\n        return y\n'
    (folder / "two.py").write_text(f"class C:\n    {method}")
    (folder / "left_out.py").write_text(
        'def short(a):\n    """Too short."""\n    return a\n\n'
        'def signature(a):\n    """signature(a) -> the very same value."""\n    return a\n\n'
        'def empty(a):\n    """Does nothing at all here."""\n    raise NotImplementedError\n'
    )
    (folder / "test" / "check.py").write_text((folder / "m0.py").read_text())
    (folder / "broken.py").write_text("def f(:\n")
    return folder


def test_a_query_is_a_docstring_and_its_document_the_code_without_it(tmp_path: Path, library: Path) -> None:
    make_functions(tmp_path / "out", library=library)
    corpus, queries = rows(tmp_path / "out/corpus.jsonl"), rows(tmp_path / "out/queries.jsonl")
    assert set(corpus) == {*(f"m{n}.add{n}" for n in range(12)), "one.up"}
    assert queries["q-m3.add3"]["text"] == "Add the numbers of case 3."
    assert corpus["m3.add3"]["text"] == "def add3(a, b):\n    total = a + b\n    return total * 3"


def test_functions_with_one_docstring_are_left_out(tmp_path: Path, library: Path) -> None:
    (library / "m3.py").write_text((library / "m4.py").read_text().replace("* 4", "* 3"))
    make_functions(tmp_path / "out", library=library)
    corpus = rows(tmp_path / "out/corpus.jsonl")
    assert "m5.add5" in corpus
    assert not {"m3.add4", "m4.add4"} & set(corpus)


def test_whole_modules_go_to_a_split(tmp_path: Path, library: Path) -> None:
    more = (library / "m1.py").read_text()
    for n in range(1, 12):
        (library / f"m{n}.py").write_text(
            "".join(more.replace("add1", f"add{n}{m}").replace("case 1", f"case {n}{m}").replace("* 1", f"* {n}{m}")
                    for m in range(1, 4))
        )  # fmt: skip
    make_functions(tmp_path / "out", library=library)
    modules = {
        split: {doc_id.partition(".")[0] for ids in judged(tmp_path / "out", split).values() for doc_id in ids}
        for split in ("train", "test")
    }
    assert len(modules["train"]) + len(modules["test"]) == 13
    assert len(modules["test"]) in (3, 4, 5)  # a quarter of 35 functions, at most 3 a module
    assert not modules["train"] & modules["test"]


def test_the_same_sources_give_the_same_bytes(tmp_path: Path, library: Path) -> None:
    make_functions(tmp_path / "a", library=library)
    make_functions(tmp_path / "b", library=library)
    files = ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_the_standard_library_gives_enough(tmp_path: Path) -> None:
    make_functions(tmp_path / "out", documents=400)
    assert len(rows(tmp_path / "out/corpus.jsonl")) == 400
    train, test = judged(tmp_path / "out", "train"), judged(tmp_path / "out", "test")
    assert len(train) > 200
    assert len(test) > 60
    assert not set().union(*train.values()) & set().union(*test.values())


def test_a_library_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Python sources here"):
        make_functions(tmp_path / "out", library=tmp_path)


def test_prose_is_what_follows_the_summary_up_to_a_section(tmp_path: Path) -> None:
    rest = "It says a good deal more about the matter, " * 4
    code = f'def f():\n    """A summary of words.\n\n    {rest}\n\n    Args:\n        none\n    """\n'
    module = tmp_path / "packages" / "numpy" / "deep" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text(code + code.replace("def f", "def again"))  # the same text is not taken twice
    make_prose(tmp_path / "out", queries=1, packages=tmp_path / "packages")
    assert rows(tmp_path / "out/corpus.jsonl") == {
        "numpy.deep.module.f": {"_id": "numpy.deep.module.f", "text": rest.strip()}
    }
    assert judged(tmp_path / "out", "test") == {"q-numpy.deep.module.f": {"numpy.deep.module.f"}}


def test_too_little_prose_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 docstrings with prose in networkx, .*; 100 are needed"):
        make_prose(tmp_path / "out", packages=tmp_path)
