"""Methods outside the package: in folders and in installed packages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from embedtune import methods
from embedtune.errors import InputError, Interrupted
from embedtune.methods import _sources
from embedtune.methods._returns import check_returned
from embedtune.methods._skeletons import write_skeleton
from embedtune.methods.contracts import check_methods
from embedtune.recipe import check_recipe, load_recipe
from embedtune.report.record import read_record
from embedtune.train.run import train
from embedtune.types import Scores

RunCli = Callable[..., Any]
ROOT = Path(__file__).parents[2]
CLOSENESS = """
from embedtune.methods import MethodSpec
from ._scale import SCALE

SPEC = MethodSpec(by_query=True, neutral={"strength": 0.0})


def closeness(scores, keep, *, strength: float = 1.0):
    \"\"\"Weighs by similarity.\"\"\"
    return (SCALE * strength * scores.student.detach().float()).masked_fill(~keep, 0.0)
"""
RECIPE = "version: 1\nmodel: {name: m}\ndata: {train: d}\n"


@pytest.fixture(autouse=True)
def _no_folder_is_left_in_use() -> Iterator[None]:
    yield
    methods.use_folders([])
    _sources._installed.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the weighting `closeness`, which imports a file of its own."""
    weighting = tmp_path / "work" / "my_methods" / "weighting"
    weighting.mkdir(parents=True)
    (weighting / "closeness.py").write_text(CLOSENESS)
    (weighting / "_scale.py").write_text("SCALE = 2.0\n")
    return weighting.parent


def small_scores() -> Scores:
    positive = torch.tensor([[True, False]])
    return Scores(student=torch.tensor([[0.9, 0.5]]), positive=positive, candidate=~positive)


def test_a_folders_method_is_known_and_works_while_the_folder_is_in_use(folder: Path) -> None:
    assert "closeness" not in methods.names("weighting")
    methods.use_folders([folder])
    assert "closeness" in methods.names("weighting")
    assert methods.describe("weighting", "closeness").file == folder / "weighting" / "closeness.py"
    scores = small_scores()
    assert methods.bind("weighting", "closeness", {"strength": 3.0})(scores, scores.candidate).tolist() == [[0.0, 3.0]]
    methods.use_folders([])
    with pytest.raises(InputError, match="unknown weighting method 'closeness'"):
        methods.bind("weighting", "closeness", {})


def test_an_edited_file_is_loaded_anew_and_has_another_fingerprint(folder: Path) -> None:
    methods.use_folders([folder])
    scores = small_scores()
    before = methods.describe("weighting", "closeness").fingerprint
    assert methods.bind("weighting", "closeness", {})(scores, scores.candidate)[0, 1] == 1.0
    (folder / "weighting" / "_scale.py").write_text("SCALE = 4.0\n")  # of the same size, in the same second
    assert methods.bind("weighting", "closeness", {})(scores, scores.candidate)[0, 1] == 2.0
    assert methods.describe("weighting", "closeness").fingerprint != before
    assert not list(folder.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("line", "helper"),
    [
        ("from .. import common", "common/__init__.py"),
        ("from .. import common", "common/inner/deep.py"),
        ("from ..common import VALUE", "common/__init__.py"),
        ("from ..common.inner import deep", "common/__init__.py"),
        ("from ..common.inner import deep", "common/inner/deep.py"),
        ("from ..loose import part", "loose/part.py"),
        ("from . import near", "weighting/near/__init__.py"),
        ("from ._scale import SCALE", "weighting/__init__.py"),
        ("from . import _scale", "weighting/_through.py"),
    ],
)
def test_an_edited_helper_gives_another_fingerprint(folder: Path, line: str, helper: str) -> None:
    for path in ("common/__init__.py", "common/inner/deep.py", "loose/part.py", "weighting/near/__init__.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("VALUE = 1\n")
    (folder / "common" / "unfinished.py").write_text("def (\n")
    (folder / "weighting" / "__init__.py").write_text("")
    (folder / "weighting" / "_through.py").write_text("")
    (folder / "weighting" / "_scale.py").write_text("from . import _through\nSCALE = 2.0\n")
    (folder / "weighting" / "closeness.py").write_text(f"{line}\n{CLOSENESS}")
    (folder / "weighting" / "other.py").write_text(CLOSENESS)
    methods.use_folders([folder])
    before = methods.describe("weighting", "closeness").fingerprint
    (folder / "weighting" / "other.py").write_text(f"{CLOSENESS}\n# edited")
    assert methods.describe("weighting", "closeness").fingerprint == before
    (folder / helper).write_text("VALUE = 2\n")
    assert methods.describe("weighting", "closeness").fingerprint != before


@pytest.mark.parametrize("line", ["from plugin.help import VALUE", "from plugin import help", "import plugin.help"])
def test_an_edited_helper_of_a_package_gives_another_fingerprint(tmp_path: Path, line: str) -> None:
    source = _sources.MethodSource(tmp_path, "plugin")
    (tmp_path / "weighting").mkdir()
    (tmp_path / "weighting" / "close.py").write_text(f"import os\n{line}\n")
    (tmp_path / "help.py").write_text("VALUE = 1\n")
    before = _sources.fingerprint(source, "weighting", "close")
    (tmp_path / "help.py").write_text("VALUE = 2\n")
    assert _sources.fingerprint(source, "weighting", "close") != before


def test_describing_runs_no_code_of_the_file(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "weighting" / "eager.py").write_text(
        f"open({str(ran)!r}, 'w')\n\ndef eager(scores, keep, *, a: float = 1.0):\n    pass\n"
        f"\ndef _unused(*, b: open({str(ran)!r}, 'w') = 1): pass\n"
    )
    methods.use_folders([folder])
    assert methods.describe("weighting", "eager").options[0].name == "a"
    assert methods.check("weighting", "eager", {"a": 2}) == []
    assert not ran.exists()


def test_a_name_that_two_places_define_is_refused_with_both_paths(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "weighting"
    other.mkdir(parents=True)
    (other / "closeness.py").write_text(CLOSENESS)
    methods.use_folders([folder, other.parent])
    with pytest.raises(InputError) as caught:
        methods.describe("weighting", "closeness")
    first, second = folder / "weighting/closeness.py", other / "closeness.py"
    assert str(caught.value) == (
        f"weighting method 'closeness' is defined twice, by {first} and {second}; rename one of them"
    )
    (other / "hardness.py").write_text(CLOSENESS.replace("closeness", "hardness"))
    with pytest.raises(
        InputError, match=r"'hardness' is defined twice, by .*embedtune/methods/weighting/hardness.py and"
    ):
        methods.describe("weighting", "hardness")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def mine(scores, keep:\n", ":1: not valid Python: "),
        ("x = 1\n", ": expected a function mine or a class Mine, which is the method"),
        ("def mine(scores):\n    pass\n", ":1: expected mine(scores, keep, *, OPTIONS), got mine(scores)"),
        ("def mine(scores, keep, alpha=1.0):\n    pass\n", "got mine(scores, keep, alpha)"),
        (
            "def mine(scores, keep, *, alpha=1.0):\n    pass\n",
            ":1: option alpha needs a type, as in alpha: float = 0.5",
        ),
        (
            "def mine(scores, keep, *, alpha: int = int(3)):\n    pass\n",
            "its default must be a literal value, got int(3)",
        ),
        ("def mine(scores, keep, *, alpha: Path = None):\n    pass\n", "the type Path is not one of int, float, bool"),
        ("def mine(scores, keep, *, weight: float = 1.0):\n    pass\n", "option weight: a recipe uses this key itself"),
        (
            "SPEC = MethodSpec(kinds=1)\ndef mine(scores, keep):\n    pass\n",
            ":1: unknown key of MethodSpec 'kinds': did you",
        ),
        (
            "SPEC = {'by_query': True}\ndef mine(scores, keep):\n    pass\n",
            ":1: expected SPEC = MethodSpec(key=value, ...)",
        ),
        (
            "SPEC = MethodSpec(by_query=yes())\ndef mine(scores, keep):\n    pass\n",
            "SPEC: by_query must be a literal value",
        ),
        ("SPEC = MethodSpec(kind='texts')\ndef mine(scores, keep):\n    pass\n", "needs SPEC = MethodSpec(no kind)"),
        ("class Mine:\n    pass\n", ":1: class Mine needs a method __call__ or forward(scores, keep, *, OPTIONS)"),
    ],
)
def test_a_faulty_file_is_one_line_that_names_it(folder: Path, text: str, problem: str) -> None:
    file = folder / "weighting" / "mine.py"
    file.write_text(text)
    methods.use_folders([folder])
    with pytest.raises(InputError) as caught:
        methods.describe("weighting", "mine")
    assert str(caught.value).startswith(str(file))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    listed, problems = methods.listing(["weighting"])
    assert len(problems) == 1
    assert "closeness" in {method.name for method in listed}


def test_a_file_that_does_not_load_is_one_line(folder: Path) -> None:
    (folder / "weighting" / "mine.py").write_text("import nowhere\n\ndef mine(scores, keep):\n    pass\n")
    methods.use_folders([folder])
    with pytest.raises(InputError, match=r"weighting/mine\.py: cannot be loaded: ModuleNotFoundError: No module named"):
        methods.bind("weighting", "mine", {})


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda root: root / "nowhere", "nowhere: no such folder of methods"),
        (lambda root: root / "my_methods" / "weighting", "holds one family; name the folder above it, "),
        (lambda root: root, "holds no methods; a weighting NAME stands in "),
    ],
)
def test_a_wrong_folder_is_one_line(folder: Path, make: Callable[[Path], Path], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        methods.use_folders([make(folder.parent)])


def write_recipe(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE + text)
    return path


def test_a_recipe_may_name_a_folder_beside_it_and_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(folder.parent, "methods: [./my_methods]\nweighting: {name: closeness, strength: 2.0}\n")
    for place in (folder.parent, folder.parents[1]):
        monkeypatch.chdir(place)
        assert load_recipe(path).methods == [str(folder)]
    assert load_recipe(path).weighting[0].options == {"strength": 2.0}


def test_a_recipes_folder_elsewhere_is_used_only_where_the_command_line_names_it(folder: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "strange", f"methods: [{folder}]\nweighting: closeness\n")
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert str(caught.value) == (
        f"methods: {folder} lies outside the recipe's folder, so its code does not run unasked; to allow it, give "
        f"--methods {folder}"
    )
    assert load_recipe(path, methods=[folder]).methods == [str(folder)]
    (tmp_path / "strange" / "link").symlink_to(folder)
    linked = write_recipe(tmp_path / "strange", "methods: [link]\nweighting: closeness\n")
    with pytest.raises(InputError, match="lies outside the recipe's folder"):
        load_recipe(linked)


@pytest.mark.parametrize(
    "spelling",
    ["./my_methods/weighting/closeness.py", "my_package:closeness", "closeness.py", "../weighting/hardness"],
)
def test_other_spellings_of_a_method_are_answered_with_the_right_one(folder: Path, spelling: str) -> None:
    path = write_recipe(folder.parent, f"weighting: [{{name: '{spelling}'}}]\n")
    with pytest.raises(InputError, match=r"weighting\.0\.name: unknown weighting method .*`methods: \[DIR\]`"):
        load_recipe(path)


@pytest.mark.parametrize("value", ["{path: closeness.py}", "{closeness: {strength: 1.0}}", "3"])
def test_a_method_without_a_name_is_a_whole_sentence(folder: Path, value: str) -> None:
    with pytest.raises(InputError, match=r"\n  weighting\.0: expected a method's name, or \{name: METHOD, "):
        load_recipe(write_recipe(folder.parent, f"weighting: [{value}]\n"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with the weighting `packaged`, whose import says so in a file."""
    site = tmp_path / "site"
    weighting = site / "nearby" / "methods" / "weighting"
    weighting.mkdir(parents=True)
    (site / "nearby" / "__init__.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n"
    )
    (weighting / "packaged.py").write_text(
        CLOSENESS.replace("closeness", "packaged").replace("._scale", "nearby.scale")
    )
    (site / "nearby" / "scale.py").write_text("SCALE = 2.0\n")
    metadata = site / "nearby-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nearby\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[embedtune.methods]\nnearby = nearby.methods\nlost = nowhere.methods\n")
    monkeypatch.syspath_prepend(str(site))
    _sources._installed.cache_clear()
    yield tmp_path / "imported"
    for name in [name for name in sys.modules if name.partition(".")[0] == "nearby"]:
        del sys.modules[name]


def test_an_installed_packages_method_is_listed_without_importing_it(
    installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    described = methods.describe("weighting", "packaged")
    assert described.source.package == "nearby.methods"
    assert not installed.exists()
    scores = small_scores()
    assert methods.bind("weighting", "packaged", {})(scores, scores.candidate).tolist() == [[0.0, 1.0]]
    assert installed.exists()
    assert "entry point lost of nearby: there is no package nowhere.methods" in caplog.text
    assert check_recipe({"version": 1, "model": {"name": "m"}, "data": {"train": "d"}, "weighting": "packaged"})


@pytest.mark.parametrize(
    ("family", "returned", "problem"),
    [
        ("weighting", torch.zeros(2), r"returned the shape \(2,\), expected \(1, 2\)"),
        ("weighting", torch.zeros(1, 2, dtype=torch.int64), "returned torch.int64, expected torch.float32"),
        ("weighting", torch.tensor([[0.0, torch.nan]]), "returned log-weights that are not finite"),
        ("weighting", torch.tensor([[1.0, 0.0]]), "returned log-weights other than 0 where keep is False"),
        ("weighting", 1.0, "returned float, expected a tensor"),
        ("filtering", torch.ones(1, 2), "returned torch.float32, expected torch.bool"),
        ("filtering", torch.tensor([[True, True]]), "keeps a column that is no candidate, such as a positive"),
        ("loss", torch.zeros(()), "returned Tensor, expected a loss and a dict of its parts"),
        ("loss", (torch.zeros(2), {}), r"returned the shape \(2,\), expected \(\)"),
        ("loss", (torch.tensor(torch.nan), {}), "returned a loss of nan"),
        ("loss", (torch.tensor(torch.nan, requires_grad=True), {}), "returned a loss of nan"),  # and warns of nothing
        ("loss", (torch.tensor(0.0), {"part": torch.zeros(3)}), "returned the part 'part', expected a number"),
    ],
)
def test_what_the_first_call_returns_is_held_to_the_contract(family: str, returned: Any, problem: str) -> None:
    scores = small_scores()
    arguments = {
        "filtering": (scores,),
        "weighting": (scores, scores.candidate),
        "loss": (scores, scores.candidate, torch.zeros(1, 2)),
    }[family]
    with pytest.raises(
        InputError, match=rf"^{family}\.mine: {problem}.*\(the contract: `embedtune methods {family}`\)$"
    ):
        check_returned(family, "mine", returned, arguments)


@pytest.mark.parametrize(
    ("family", "returned", "arguments", "problem"),
    [
        ("sampling", torch.tensor([1, 1]), (torch.zeros(3), 0.5), "expected each at most once"),
        ("sampling", torch.tensor([7]), (torch.zeros(3), 0.5), "expected each at most once"),
        ("batching", "batches", ([], 2, None), "expected a list of batches"),
        ("synthesis", 3, ("text",), "returned int, not a text"),
        ("mining", [], (None, None), "returned list, expected {source: "),
    ],
)
def test_samplers_batchings_makers_and_miners_are_held_to_theirs(
    family: str, returned: Any, arguments: tuple[Any, ...], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        check_returned(family, "mine", returned, arguments)


def test_a_weighting_that_would_broadcast_is_refused_at_its_first_call(folder: Path) -> None:
    (folder / "weighting" / "flat.py").write_text(
        "import torch\n\ndef flat(scores, keep):\n    return torch.zeros(keep.shape[1])\n"
    )
    methods.use_folders([folder])
    scores = small_scores()
    with pytest.raises(InputError, match=r"^weighting\.flat: returned the shape \(2,\), expected \(1, 2\)"):
        methods.bind("weighting", "flat", {})(scores, scores.candidate)


def test_an_error_of_a_method_is_one_line_that_names_its_file(folder: Path) -> None:
    file = folder / "weighting" / "wrong.py"
    file.write_text("def wrong(scores, keep, *, power: float = 1.0):\n    return scores.studnet\n")
    other = folder / "weighting" / "stiff.py"
    other.write_text(
        'from embedtune.methods import MethodSpec\n\nSPEC = MethodSpec(scheduled=("power",))\n\n\nclass Stiff:\n'
        "    def __init__(self, *, power: float = 1.0):\n        1 / power\n\n"
        "    def __call__(self, scores, keep):\n        pass\n"
    )
    methods.use_folders([folder])
    scores = small_scores()
    with pytest.raises(InputError, match=r"^weighting\.wrong: .*wrong\.py raised AttributeError: 'Scores' object"):
        methods.bind("weighting", "wrong", {})(scores, scores.candidate)
    with pytest.raises(InputError, match=r"^weighting\.stiff: .*stiff\.py raised ZeroDivisionError: "):
        methods.bind("weighting", "stiff", {"power": 0.0})
    with pytest.raises(InputError, match=r"stiff\.py: Stiff must be a torch\.nn\.Module to follow a schedule"):
        methods.bind("weighting", "stiff", {"power": {"from": 1.0, "to": 2.0}})


@pytest.mark.parametrize("family", methods.FAMILIES)
def test_a_skeleton_keeps_its_familys_contract(family: str, tmp_path: Path) -> None:
    write_skeleton(family, "my_own", tmp_path)
    findings = check_methods(tmp_path)
    assert findings
    assert [finding for finding in findings if finding.problem is not None] == []


def test_a_skeletons_test_passes_as_written(tmp_path: Path) -> None:
    _, test = write_skeleton("weighting", "my_own", tmp_path)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


@pytest.mark.parametrize(
    ("family", "name", "problem"),
    [
        ("weightings", "x", "unknown family 'weightings': did you mean 'weighting'?"),
        ("weighting", "My-Weighting", "expected a name of lower-case letters"),
        ("weighting", "hardness", "the weighting family has a method of this name"),
    ],
)
def test_a_skeleton_of_a_wrong_name_is_refused(family: str, name: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem.replace("?", r"\?")):
        write_skeleton(family, name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_verbs_list_write_and_check(run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("methods", "new", "weighting", "closeness").exit_code == 0
    assert run_cli("methods", "new", "weighting", "closeness").exit_code == 2
    (listed,) = json.loads(run_cli("methods", "--methods", "my_methods", "--json").stdout)
    assert (listed["family"], listed["method"], listed["from"]) == (
        "weighting",
        "closeness",
        str(tmp_path / "my_methods"),
    )
    checked = run_cli("methods", "check", "my_methods", "--json")
    assert checked.exit_code == 0
    assert {row["result"] for row in json.loads(checked.stdout)} == {"kept"}
    file = tmp_path / "my_methods" / "weighting" / "closeness.py"
    file.write_text(file.read_text().replace(".masked_fill(~keep, 0.0)", ""))
    broken = run_cli("methods", "check", "my_methods")
    assert (broken.exit_code, broken.stderr) == (1, "missed: 1 of 3 contracts are broken\n")


def trained(python: str, environment: dict[str, str], folder: Path, output: str, *, kill_at: int | None = None) -> int:
    """Trains by the folder's recipe in a process of its own; kill_at: the step after which it is killed."""
    command = [python, "-m", "embedtune_cli", "train", "recipe.yaml", "--output", output, "--resume"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    log = folder / output / "log.jsonl"
    while kill_at is not None and process.poll() is None:
        if log.exists() and log.read_bytes().count(b'"event": "step"') >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    (folder / "stderr").write_text(process.communicate()[1])
    return process.returncode


def check_life_of_a_run(python: str, environment: dict[str, str], folder: Path, model: Path, data: Path) -> None:
    """A method in a folder is trained with, resumed after a kill to the same bits, and refused after a change."""
    (folder / "recipe.yaml").write_text(
        f"version: 1\nmodel: {{name: {model}}}\ndata: {{train: {data}}}\nmethods: [./my_methods]\n"
        "weighting: {name: closeness, strength: 2.0}\n"
        "train: {epochs: 6, batch_size: 4, checkpoint_every: 4, learning_rate: 1e-3}\n"
    )
    assert trained(python, environment, folder, "whole") == 0
    assert trained(python, environment, folder, "killed", kill_at=6) == -signal.SIGKILL
    file = folder / "my_methods" / "weighting" / "closeness.py"
    text = file.read_text()
    file.write_text(text + "\n# changed\n")
    assert trained(python, environment, folder, "killed") == 2
    refusal = (folder / "stderr").read_text().splitlines()[-1]
    assert refusal == (
        "error: killed: --resume, but method weighting.closeness changed since the run was started; start a new run"
    )
    file.write_text(text)
    assert trained(python, environment, folder, "killed") == 0
    weights = [(folder / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "killed")]
    assert weights[0] == weights[1]
    recorded = json.loads((folder / "killed" / "environment.json").read_text())["fingerprints"]
    assert len(recorded["method weighting.closeness"]) == 32
    plain = (folder / "recipe.yaml").read_text().replace("weighting: {name: closeness, strength: 2.0}\n", "")
    (folder / "recipe.yaml").write_text(plain)
    assert trained(python, environment, folder, "plain") == 0
    assert (folder / "plain" / "model" / "model.safetensors").read_bytes() != weights[0]  # the method had an effect


def test_a_run_with_a_folders_method_is_resumed_to_the_same_bits_and_refused_after_a_change(
    folder: Path, tiny_model: Path, tiny_dataset: Path
) -> None:
    path = folder.parent / "recipe.yaml"
    path.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {tiny_dataset}}}\nmethods: [{folder}]\n"
        "weighting: {name: closeness, strength: 2.0}\n"
        "train: {epochs: 3, batch_size: 4, checkpoint_every: 2, learning_rate: 1e-3}\n"
    )
    recipe, work = load_recipe(path), folder.parent
    train(recipe, work / "whole")

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(recipe, work / "killed", on_event=interrupt)
    scale = folder / "weighting" / "_scale.py"
    scale.write_text("SCALE = 4.0\n")
    with pytest.raises(InputError, match=r"killed: --resume, but method weighting\.closeness changed since"):
        train(recipe, work / "killed", resume=True)
    scale.write_text("SCALE = 2.0\n")
    train(recipe, work / "killed", resume=True)
    files = [work / name / "model" / "model.safetensors" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    train(load_recipe(path, ["weighting.strength=0.0"]), work / "plain")
    file = folder / "weighting" / "closeness.py"
    file.rename(file.with_suffix(".gone"))
    methods.use_folders([])
    assert read_record(work / "whole").recipe["weighting"] == [{"name": "closeness", "strength": 2.0}]
    plain = work / "plain" / "model" / "model.safetensors"
    assert plain.read_bytes() != files[0].read_bytes()  # so the method had an effect


@pytest.mark.slow
def test_an_installed_wheel_lists_checks_trains_resumes_and_refuses(
    tmp_path: Path, tiny_model: Path, tiny_dataset: Path
) -> None:
    wheels, fresh, work = tmp_path / "wheels", tmp_path / "fresh", tmp_path / "work"
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", fresh], check=True)
    python = str(fresh / "bin" / "python")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    (wheel,) = wheels.glob("embedtune-*.whl")
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True, env=environment)
    (library,) = (fresh / "lib").glob("python*/site-packages")
    (library / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    work.mkdir()

    def verb(*args: str) -> str:
        command = [python, "-m", "embedtune_cli", *args]
        return subprocess.run(command, cwd=work, env=environment, check=True, capture_output=True, text=True).stdout

    where = subprocess.run(
        [python, "-c", "import embedtune; print(embedtune.__file__)"], cwd=work, env=environment, capture_output=True
    )
    assert str(fresh) in where.stdout.decode()
    verb("methods", "new", "weighting", "closeness")
    assert "weighting\tcloseness\t" in verb("methods", "--methods", "my_methods")
    assert "broken" not in verb("methods", "check", "my_methods")
    check_life_of_a_run(python, environment, work, tiny_model, tiny_dataset)
