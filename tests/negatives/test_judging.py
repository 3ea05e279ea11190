"""`embedtune judge`: scores for the filter of that name, by a model or by a program of one's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

from embedtune.data.dataset import load_dataset
from embedtune.data.trec import read_run
from embedtune.models.encoder import load_encoder
from embedtune.models.scorers import EncoderScores
from embedtune.negatives.evidence import files_of
from embedtune.negatives.judging import pairs_of

RunCli = Callable[..., Result]
PROGRAM = """
import json, sys
for line in sys.stdin:
    pair = json.loads(line)
    print(len(set(pair["query"].split()) & set(pair["document"].split())))
"""


@pytest.fixture
def mined(tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli) -> Path:
    result = run_cli("mine", f"{tiny_dataset}:train", "--model", tiny_model, "--output", tmp_path / "mined.run",
                     "--range-max", "5")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return tmp_path / "mined.run"


def test_a_model_judges_positives_and_candidates(
    mined: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    result = run_cli("judge", mined, "--model", tiny_model, "--output", tmp_path / "judge.run", "--json")
    assert result.exit_code == 0, result.stderr
    dataset, judged = load_dataset(tiny_dataset, "train"), read_run(tmp_path / "judge.run")
    scorer = EncoderScores(load_encoder(str(tiny_model)), dataset)
    assert judged.keys() == dataset.qrels.keys()
    pairs = sum(map(len, judged.values()))
    shown = {"output": str(tmp_path / "judge.run"), "judge": str(tiny_model), "queries": len(judged), "pairs": pairs}
    assert json.loads(result.stdout) == shown
    for query_id, scores in judged.items():
        assert dataset.qrels[query_id].keys() <= scores.keys()
        assert list(scores.values()) == pytest.approx(list(map(float, scorer(query_id, list(scores)))))


def test_a_program_judges_and_a_filter_reads_it(
    mined: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    program = tmp_path / "count.py"
    program.write_text(PROGRAM)
    result = run_cli("judge", mined, "--command", f"{sys.executable} {program}", "--output", tmp_path / "judge.run")
    assert result.exit_code == 0, result.stderr
    dataset, judged = load_dataset(tiny_dataset, "train"), read_run(tmp_path / "judge.run")
    pairs = pairs_of(files_of(mined), dataset)
    query_id, doc_ids = next(iter(pairs.items()))
    shared = set(dataset.queries[query_id].content.split()) & set(dataset.corpus[doc_ids[0]].content.split())
    assert judged[query_id][doc_ids[0]] == len(shared)
    audited = run_cli("audit", mined, "--threshold", f"{{name: judge, path: {tmp_path / 'judge.run'}, margin: 0.5}}")
    assert audited.exit_code == 0, audited.stderr
    assert "judge" in audited.stdout


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("echo 1", "printed 1 lines for"),
        ("no-such-program", "No such file or directory"),
        ("false", "returned non-zero exit status 1"),
        ("", "--command '': is empty; name a program"),
        ("  ", "--command '  ': is empty; name a program"),
        ("python 'judge.py", "no closing quotation; quote it as for a shell"),
        ("judge\\", "no escaped character; quote it as for a shell"),
        ("judge\0", "embedded null byte"),
        (
            f"{sys.executable} -c \"import sys; [print('yes') for _ in sys.stdin]\"",
            "expected a finite number, got 'yes'",
        ),
    ],
)
def test_a_program_that_does_not_answer_is_named(
    mined: Path, tmp_path: Path, run_cli: RunCli, command: str, expected: str
) -> None:
    result = run_cli("judge", mined, "--command", command, "--output", tmp_path / "judge.run")
    assert result.exit_code == 2
    assert expected in result.stderr
    assert not (tmp_path / "judge.run").exists()
    neither = run_cli("judge", mined, "--output", tmp_path / "judge.run")
    assert neither.stderr == "error: name one judge: --model MODEL or --command PROGRAM\n"


def test_no_verb_replaces_the_run_of_another(
    mined: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    judged, searched, index = tmp_path / "judge.run", tmp_path / "search.run", tmp_path / "index"
    assert run_cli("index", tiny_dataset, "--model", tiny_model, "--output", index).exit_code == 0
    verbs = {
        mined: ["mine", f"{tiny_dataset}:train", "--model", tiny_model, "--range-max", "5"],
        judged: ["judge", mined, "--model", tiny_model],
        searched: ["search", index, "--queries", tiny_dataset],
    }
    for output, arguments in list(verbs.items())[1:]:
        assert run_cli(*arguments, "--output", output).exit_code == 0
    for output, arguments in verbs.items():
        for other in verbs:
            before = other.read_bytes()
            done = run_cli(*arguments, "--output", other, "--overwrite")
            if other == output:
                assert (done.exit_code, other.read_bytes()) == (0, before), done.stderr
            else:
                assert f"{other}: exists already and was not written by `embedtune {arguments[0]}`" in done.stderr
                assert (done.exit_code, other.read_bytes()) == (2, before)
