"""The main job, small: data made on the spot, a real model, trained, measured, indexed and searched; no network.

It is one shipped recipe (`text/quickstart`) with its paths changed. Everything it makes is in one folder, and running
it again goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from . import shipped
from .build_index import build
from .data.dataset import load_dataset
from .data.python_functions import make_functions, make_prose
from .encode.encoder import load_encoder
from .encode.locate import locate
from .errors import InputError, Interrupted
from .files import write_text
from .index import Found, find, open_index
from .recipe import Recipe, dump, load_recipe
from .train.log import Listener
from .train.run import TrainedRun, train

RECIPE = "text/quickstart"
EXAMPLE = "send an email"


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """What was made: the recipe, the run with its measures, the index, and what the example query finds in it."""

    recipe: Path
    run: TrainedRun
    index: Path
    query: str
    found: list[Found]


def quickstart(output: Path, *, overwrite: bool = False, on_event: Listener | None = None) -> Quickstart:
    """Runs the quickstart in the folder `output`, or finishes the one that was begun there.

    overwrite: replaces an earlier quickstart's run and index. Raises InputError where the model's package is not
    installed or the folder holds something else.
    """
    recipe_file = output / "recipe.yaml"
    if output.exists() and not recipe_file.exists() and any(output.iterdir()):
        raise InputError(f"{output}: exists and is not a quickstart's folder; choose another --output")
    recipe = _recipe(output)
    locate(recipe.model.label)
    tell = on_event or (lambda event: None)
    write_text(recipe_file, f"# {shipped.summary(RECIPE)}\n# embedtune train {recipe_file}\n{dump(recipe)}")
    for folder, make in ((_functions(output), make_functions), (_prose(output), make_prose)):
        if not folder.exists():
            tell({"event": "phase", "name": f"make {folder} from Python sources on this machine"})
            make(folder)
    try:
        run = train(recipe, output / "run", resume=not overwrite, overwrite=overwrite, on_event=on_event)
    except Interrupted:
        raise Interrupted("the state is saved; the same command goes on from here") from None
    tell({"event": "phase", "name": f"index {_functions(output)} with the tuned model"})
    encoder = load_encoder(dataclasses.replace(recipe.model, name=str(run.model), lora=None))
    build(encoder, load_dataset(_functions(output)).corpus, output / "index", overwrite=True)
    found = find(open_index(output / "index"), encoder, EXAMPLE, 3)
    return Quickstart(recipe=recipe_file, run=run, index=output / "index", query=EXAMPLE, found=found)


def _functions(output: Path) -> Path:
    return output / "data" / "functions"


def _prose(output: Path) -> Path:
    return output / "data" / "prose"


def _recipe(output: Path) -> Recipe:
    """The shipped recipe on the data of this folder. JSON strings are YAML's as well, whatever the folder's name."""
    functions, prose = json.dumps(str(_functions(output))), json.dumps(str(_prose(output)))
    changes = [f"data.train={functions}", f"evaluate.in_domain=[{functions}]", f"evaluate.out_of_domain=[{prose}]"]
    return load_recipe(shipped.path(RECIPE), changes)
