from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

RunCli = Callable[..., Any]


def test_all_methods_are_listed_with_what_they_do(run_cli: RunCli) -> None:
    lines = run_cli("methods").stdout.splitlines()
    assert lines[0] == "family\tmethod\tstatus\twhat it does\tfrom"
    assert any(line.startswith("loss\tinfonce\t\tCross-entropy") for line in lines)


def test_a_family_is_listed_alone(run_cli: RunCli) -> None:
    listed = json.loads(run_cli("methods", "batching", "--json").stdout)
    assert {row["family"] for row in listed} == {"batching"}


def test_a_method_is_shown_with_its_paper_and_options(run_cli: RunCli) -> None:
    shown = run_cli("methods", "infonce").stdout
    assert "arXiv 1807.03748" in shown
    assert "  temperature: float = 0.05" in shown
    (described,) = json.loads(run_cli("methods", "infonce", "--json").stdout)
    assert described["options"][0] == {"name": "temperature", "type": "float", "required": False, "default": 0.05}


def test_an_unknown_method_names_the_nearest(run_cli: RunCli) -> None:
    result = run_cli("methods", "infonec")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: unknown family or method 'infonec': did you mean 'infonce'?\n",
    )
