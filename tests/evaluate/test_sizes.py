"""`eval --sizes --quantize`: one row for each way to store vectors, tested against the whole ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.errors import InputError
from embedtune.evaluate.significance import holm, paired
from embedtune.evaluate.sizes import StoredAs, beside_base, read_sizes, stored_ways
from embedtune.recipe import check_recipe
from embedtune.report.record import read_record
from embedtune.train.run import train

RunCli = Callable[..., Any]


def by_query(folder: Path, measure: str = "nDCG@10") -> dict[str, float]:
    lines = [json.loads(line) for line in (folder / "per-query.jsonl").read_text().splitlines()]
    return {line["query_id"]: line["measures"][measure] for line in lines}


def test_each_row_is_what_eval_measures_at_that_size_and_precision(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    result = run_cli(
        "eval", tiny_model, "--data", tiny_dataset, "--sizes", "32,12", "--quantize", "none,int8,binary",
        "--output", tmp_path / "all", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["dimensions"], row["stored"], row["bytes"]) for row in rows] == [
        (32, "none", 128), (32, "int8", 32), (32, "binary", 4), (12, "none", 48), (12, "int8", 12), (12, "binary", 2),
    ]  # fmt: skip
    whole = by_query(tmp_path / "all/tiny")
    assert rows[0]["difference"] is None
    p_values = []
    for number, row in enumerate(rows[1:]):
        alone = tmp_path / str(number)
        done = run_cli("eval", tiny_model, "--data", tiny_dataset, "--truncate-dim", row["dimensions"].__str__(),
                       "--quantize", row["stored"], "--output", alone)  # fmt: skip
        assert done.exit_code == 0, done.stderr
        test = paired(whole, by_query(alone / "tiny"))
        assert (row["nDCG@10"], row["difference"], row["low"], row["high"]) == (
            test.value, test.difference, test.low, test.high,
        )  # fmt: skip
        p_values.append(test.p)
    assert [row["p (Holm)"] for row in rows[1:]] == holm(p_values)
    sizes = read_sizes(tmp_path / "all/tiny")
    assert sizes is not None
    assert sizes.query_ids == list(whole)
    assert sizes.cells[0].values == list(whole.values())


def test_the_plot_has_a_line_for_each_precision(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'embedtune[plots]'")
    options = ["--sizes", "16,8", "--quantize", "none,binary", "--output", tmp_path / "out", "--measures", "R@10"]
    for overwrite in ([], ["--overwrite"]):
        result = run_cli("eval", tiny_model, "--data", tiny_dataset, *options, *overwrite)
        assert result.exit_code == 0, result.stderr
    svg = (tmp_path / "out/tiny/sizes.svg").read_text()
    assert all(text in svg for text in (">float32<", ">binary<", ">R@10<", ">bytes of one stored vector<", ">128<"))


def test_rescoring_is_of_the_rows_whose_vectors_hold_less() -> None:
    assert stored_ways(None, "none,int8,binary", "int8", 64) == [
        StoredAs(dimensions=64), StoredAs(dimensions=64, quantize="int8"),
        StoredAs(dimensions=64, quantize="binary", rescore="int8"),
    ]  # fmt: skip
    for arguments, message in [
        (("64,x", "none", None), "--sizes 64,x: expected numbers of dimensions, as in 384,128,64; got 'x'"),
        (("65", "none", None), "cannot truncate to 65 dimensions: the model has 64"),
        (("8,8", "none", None), "--sizes: expected each value once, got 8, 8"),
        (("8", "int9", None), "--quantize: unknown precision 'int9'"),
        (("8", "none,int8", "int8"), "--rescore int8 has no effect with --quantize none,int8"),
    ]:
        with pytest.raises(InputError) as error:
            stored_ways(*arguments, 64)  # type: ignore[arg-type]
        assert message in str(error.value)


def test_options_that_contradict_are_refused(tiny_model: Path, tiny_dataset: Path, run_cli: RunCli) -> None:
    for options, message in [
        (["--sizes", "8", "--truncate-dim", "8"], "--sizes and --truncate-dim both name sizes"),
        (["--sizes", "8", "--baseline", tiny_model], "leave out --baseline"),
        (["--calibrate", tiny_dataset], "--calibrate has no effect: int8 alone has ranges"),
        (["--rescore", "int8"], "--rescore int8 has no effect"),
        (["--sizes", "99"], "cannot truncate to 99 dimensions"),
    ]:
        result = run_cli("eval", tiny_model, "--data", tiny_dataset, *options)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_other_documents_give_the_ranges_and_the_result_names_them(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    protocols = []
    for name, options in (("own", []), ("other", ["--calibrate", f"{tiny_dataset}:train"])):
        done = run_cli("eval", tiny_model, "--data", tiny_dataset, "--output", tmp_path / name, "--quantize", "int8",
                       *options)  # fmt: skip
        assert done.exit_code == 0, done.stderr
        protocols.append(json.loads((tmp_path / name / "tiny/measures.json").read_text())["protocol"])
    assert protocols[1] == protocols[0] | {"calibration": protocols[1]["calibration"]}
    assert by_query(tmp_path / "own/tiny") == by_query(tmp_path / "other/tiny")  # the same corpus in both splits


def test_compare_names_another_precision(tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for name, options in (("whole", []), ("bits", ["--quantize", "binary"])):
        assert run_cli("eval", tiny_model, "--data", tiny_dataset, "--output", tmp_path / name, *options).exit_code == 0
    result = run_cli("compare", tmp_path / "whole", tmp_path / "bits")
    assert "tiny: DIFFERENT SETTINGS: quantize is none and binary, which changes the values by itself" in result.stderr


def test_a_run_with_matryoshka_reports_its_sizes(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = check_recipe(
        {
            "version": 1,
            "model": {"name": str(tiny_model)},
            "data": {"train": str(tiny_dataset)},
            "matryoshka": [8, 16],
            "train": {"max_steps": 2, "batch_size": 8, "learning_rate": 3e-3},
            "evaluate": {"in_domain": [str(tiny_dataset)], "measure": "RR@10"},
        }
    )
    run = train(recipe, tmp_path / "run")
    rows = read_record(run.folder).sizes
    assert [(row.dataset, row.dimensions, row.bytes, row.measure) for row in rows] == [
        ("tiny", 32, 128, "RR@10"), ("tiny", 16, 64, "RR@10"), ("tiny", 8, 32, "RR@10"),
    ]  # fmt: skip
    assert (rows[0].base, rows[0].tuned) == (run.base["tiny"]["RR@10"], run.tuned["tiny"]["RR@10"])
    assert [row.of_whole for row in rows] == pytest.approx([row.tuned - rows[0].tuned for row in rows], abs=1e-12)
    both = [read_sizes(run.folder / name / "tiny") for name in ("evaluation-base", "evaluation")]
    assert both[0] is not None
    assert both[1] is not None
    assert beside_base("tiny", both[0], both[1]) == rows
    test = paired(*(dict(zip(sizes.query_ids, sizes.cells[1].values, strict=True)) for sizes in both if sizes))
    assert rows[2].difference == test.difference  # cells[1]: the recipe's first, 8
