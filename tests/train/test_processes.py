"""Two processes compute what one does on the joined batch: the same loss, the same gradient, the same weights."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import encoding_process
import pytest
import torch
import torch.distributed
from conftest import write_dataset
from safetensors.torch import load_file
from training_process import launch

from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.prepared import Prepared
from embedtune.recipe import check_recipe
from embedtune.train.objective import Objective
from embedtune.train.step import Tokens, TrainingStep, accumulate_gradients, lay_out, sum_gradients
from embedtune.types import Pair, Role

SCRIPT = """
import sys
from pathlib import Path
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from embedtune.data.dataset import load_dataset
from embedtune.models.encoder import load_encoder
from embedtune.recipe import check_recipe
from embedtune.train.prepare import switch_off_dropout
from embedtune.train.plan import Plan
from embedtune.data.relevance import Relevance
from embedtune.train.objective import Objective
from embedtune.train.step import (
    Tokens, TrainingStep, accumulate_gradients, lay_out, sum_gradients, training_mode,
)

model, data, output = sys.argv[1:]
accelerator = Accelerator(cpu=True)
found = {}
for dtype in (torch.float32, torch.float64):
    for chunk_size in (None, 3):
        if dtype == torch.float64:
            torch.Tensor.float = lambda tensor: tensor
        encoder = load_encoder(model)
        encoder.model.to(dtype)
        switch_off_dropout(encoder.model)
        training_mode(encoder.model)
        dataset = load_dataset(data, "train")
        loss = {"name": "infonce", "directions": ["query_document", "document_query"]}
        recipe = check_recipe({"version": 1, "model": {"name": model}, "data": {"train": data}, "loss": loss,
                               "train": {"batch_size": 13}})
        pairs = Plan(recipe, dataset, list(dataset.qrels)).epoch(0)[0]
        batch = lay_out(pairs, {pairs[0].query_id: ["d55", "d56"]}, Relevance(dataset))
        tokens = Tokens(encoder, dataset.queries, "query"), Tokens(encoder, dataset.corpus, "document")
        step = TrainingStep(encoder=encoder, objective=Objective.of(recipe), tokens=tokens, accelerator=accelerator,
                            chunk_size=chunk_size)
        value, _ = accumulate_gradients(step, batch, torch.Generator(), progress=0.0)
        parameters = list(encoder.model.parameters())
        sum_gradients(parameters, accelerator)
        gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        found[f"{dtype} {chunk_size}"] = torch.cat([gradient, value.reshape(1).to(dtype)])
if accelerator.is_main_process:
    save_file(found, output)
accelerator.wait_for_everyone()  # a process that leaves while another still sends is an abort now and then
accelerator.end_training()
"""


def by_both(processes: int, folder: Path, *arguments: str | Path) -> tuple[str, list[dict[str, Any]]]:
    """Runs the command line with an empty cache; gives what it printed, and who encoded what."""
    notes = folder / f"notes-{processes}"
    notes.mkdir(parents=True)
    cache = str(folder / f"cache-{processes}")
    done = launch(processes, encoding_process.__file__, notes, *arguments, EMBEDTUNE_CACHE=cache)
    return done.stdout, encoding_process.noted_in(notes)


def test_two_processes_have_the_gradient_of_one(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    script = tmp_path / "gradient.py"
    script.write_text(SCRIPT)
    for processes in (1, 2):
        launch(processes, script, tiny_model, tiny_dataset, tmp_path / f"{processes}.safetensors")
    one, two = (load_file(tmp_path / f"{processes}.safetensors") for processes in (1, 2))
    assert one.keys() == two.keys()
    for name, expected in one.items():
        tolerance = 1e-5 if "float32" in name else 1e-10
        assert float((two[name] - expected).norm() / expected.norm()) < tolerance, name


@dataclass
class Work:
    """Something that another process is asked for."""

    name: str
    events: list[str]

    def wait(self) -> None:
        self.events.append(f"wait for {self.name}")


def test_queries_are_gathered_while_documents_are_encoded(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, dataset = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    events: list[str] = []

    def all_gather(outputs: list[torch.Tensor], own: torch.Tensor, *, async_op: bool) -> Work:
        assert async_op
        for output in outputs:
            output.copy_(own)
        events.append(f"gather {len(outputs) * len(own)} rows")
        return Work(f"{len(outputs) * len(own)} rows", events)

    def forward(chunk: Sequence[Prepared], role: Role) -> torch.Tensor:
        events.append(f"encode a {role}" + " again" * torch.is_grad_enabled())
        return Encoder.forward(encoder, chunk, role)

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    monkeypatch.setattr(encoder, "forward", forward)
    both = {"name": "infonce", "directions": ["query_document", "document_query"]}
    recipe = check_recipe({"version": 1, "model": {"name": "m"}, "data": {"train": "d"}, "loss": both})
    pairs = [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in (1, 2)]
    batch = lay_out(pairs, {"q1": ["d40", "d41"]}, Relevance(dataset))
    accelerator: Any = SimpleNamespace(num_processes=2, process_index=0, scaler=None)
    step = TrainingStep(
        encoder=encoder,
        objective=Objective.of(recipe),
        tokens=(Tokens(encoder, dataset.queries, "query"), Tokens(encoder, dataset.corpus, "document")),
        accelerator=accelerator,
        chunk_size=1,
    )
    accumulate_gradients(step, batch, torch.Generator(), progress=0.0)
    assert events == [
        "encode a query",
        "gather 2 rows",
        "encode a document",
        "encode a document",
        "gather 4 rows",
        "wait for 2 rows",
        "wait for 4 rows",
        "encode a query again",
        "encode a document again",
        "encode a document again",
    ]


def test_gradients_are_summed_in_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    summed: list[int] = []

    def all_reduce(flat: torch.Tensor) -> None:
        flat *= 2  # the other process has the same
        summed.append(len(flat))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr("embedtune.train.step.BUCKET", 6)
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (4, 3, 8, 1, 5, 2)]
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, float(number)) if number != 1 else None
    uses = torch.tensor([2.0, 1.0, 2.0, 0.0, 2.0, 2.0])  # the second is the other process's alone, the fourth no one's
    parameters[3].grad = None
    accelerator = SimpleNamespace(num_processes=2, device="cpu", reduce=lambda used, how: uses)
    sum_gradients(parameters, accelerator)
    assert summed == [7, 8, 7]
    found = [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]
    assert found == [[0.0] * 4, [0.0] * 3, [4.0] * 8, None, [8.0] * 5, [10.0] * 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "weights"),
    [
        ("", "model.safetensors"),
        (
            "negatives: {live: {depth: 10}}\nloss: {name: lambda_rank, negatives: own}\n",
            "query_0_Transformer/model.safetensors",
        ),
        (
            "negatives: {mining: dense, sampling: {name: top, count: 2}, replace: {every: 1, fallen: 1.0, start: 2}}\n"
            "synthesis: [number, negation]\n"
            "loss: [{name: infonce}, {name: ahnpl, weight: 0.2, temperature: 0.1}, {name: ncu, weight: 0.1}]\n",
            "model.safetensors",
        ),
    ],
    ids=["plain", "live", "replaced"],
)
def test_a_run_on_two_processes_is_a_run_on_one(
    more: str, weights: str, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\n"
        f"data: {{train: {tiny_dataset}, validation: {{share: 0.3, documents: 30}}}}\n"
        "train: {batch_size: 5, epochs: 2, learning_rate: 1e-4, precision: fp32}\n" + more
    )
    for processes in (1, 2):
        output = tmp_path / f"on-{processes}"
        launch(processes, "-m", "embedtune_cli", "train", recipe, "--output", output)
    one, two = (load_file(tmp_path / f"on-{n}" / "model" / weights) for n in (1, 2))
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, atol=2e-5, rtol=0)


@pytest.mark.slow
def test_pictures_in_stages_on_two_processes(image_models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    text, image = image_models["words"], image_models["vit"]
    recipe.write_text(
        f"version: 1\nmodel: {{compose: {{text: {text}, image: {image}, dimension: 8}}, lora: {{rank: 2}}}}\n"
        f"data: {{train: {pictures}, validation: {{share: 0.3, documents: 30}}}}\n"
        "negatives: {mining: {name: dense, depth: 10}, sampling: {name: top, count: 2}}\n"
        "train: {projections_first: {epochs: 1.0, learning_rate: 1e-3}, batch_size: 5, epochs: 1, precision: fp32,\n"
        "        learning_rate: 1e-4, chunk_size: 2}\n"
    )
    for processes in (1, 2):
        launch(processes, "-m", "embedtune_cli", "train", recipe, "--output", tmp_path / f"on-{processes}")
    folders = [tmp_path / f"on-{processes}/model" for processes in (1, 2)]
    files = sorted(file.relative_to(folders[0]) for file in folders[0].rglob("*.safetensors"))
    assert len(files) == 4  # two towers and their projections
    for file in files:
        one, two = load_file(folders[0] / file), load_file(folders[1] / file)
        for name, expected in one.items():
            torch.testing.assert_close(two[name], expected, atol=2e-5, rtol=0)


def ids_by_rank(lines: list[dict[str, Any]], role: str = "document") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        if line["role"] == role:
            found.setdefault(line["rank"], []).extend(line["ids"])
    return found


def test_mine_encodes_on_both_processes_and_one_writes(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    said = {}
    for processes in (1, 2):
        arguments = ["mine", f"{tiny_dataset}:train", "--model", tiny_model, "--output", tmp_path / f"{processes}.run"]
        said[processes], lines = by_both(processes, tmp_path, *arguments)
        found = ids_by_rank(lines)
        assert len(found) == processes
        assert sorted(itertools.chain(*found.values())) == sorted(f"d{n}" for n in range(60))  # each once
    assert said[1] == said[2]  # printed once
    for suffix in (".run", ".jsonl", ".json"):
        one, two = (Path(tmp_path / f"{processes}.run").with_suffix(suffix).read_bytes() for processes in (1, 2))
        assert one == two


@pytest.mark.slow
def test_index_encode_and_eval_encode_on_both_processes(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    for verb, compared in (
        ("index", ["index.faiss", "documents.jsonl", "manifest.json"]),
        ("encode", ["corpus.npy", "queries.npy", "manifest.json"]),
        ("eval", [f"{tiny_dataset.name}-train/measures.json", f"{tiny_dataset.name}-train/run.trec"]),
    ):
        said, folder = {}, tmp_path / verb
        for processes in (1, 2):
            data = ["--data", f"{tiny_dataset}:train"] if verb == "eval" else ["--model", tiny_model]
            what = tiny_model if verb == "eval" else tiny_dataset
            output = folder / str(processes) / "output"
            said[processes], lines = by_both(processes, folder, verb, what, *data, "--output", output)
            found = ids_by_rank(lines)
            assert len(found) == processes, verb
            assert sorted(itertools.chain(*found.values())) == sorted(f"d{n}" for n in range(60))
        assert said[2].replace("/2/output", "/1/output") == said[1]
        for name in compared:
            one, two = ((folder / str(n) / "output" / name).read_bytes() for n in (1, 2))
            assert one == two, (verb, name)


@pytest.mark.slow
def test_a_run_encodes_on_both_processes_wherever_it_encodes(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    foreign = write_dataset(tmp_path / "foreign", documents=50, queries=20, seed=7)
    recipe.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\n"
        f"data: {{train: {tiny_dataset}, validation: {{share: 0.3}}}}\n"
        "negatives: {mining: [{name: dense, depth: 20}, bm25], teacher: {teacher}, refresh: {every: 2}}\n".replace(
            "{teacher}", str(tiny_model)
        )
        + "train: {batch_size: 5, epochs: 1, learning_rate: 1e-3, precision: fp32, validate_every: 3}\n"
        f"evaluate: {{in_domain: [{tiny_dataset}], out_of_domain: [{foreign}],\n"
        "           guard: {interpolate: true, alphas: [0.0, 1.0], largest_drop: 1.0}}\n"
    )
    outputs = {}
    for processes in (1, 2):
        outputs[processes] = tmp_path / f"on-{processes}"
        _, lines = by_both(processes, tmp_path, "train", recipe, "--output", outputs[processes])
        ranks = ids_by_rank(lines)
        assert len(ranks) == processes
    assert len(ranks["1"]) > 0.2 * len(ranks["0"])
    one, two = (output / "negatives" / "mined.run" for output in outputs.values())
    assert one.read_bytes() == two.read_bytes()
    assert len(list(one.parent.glob("step-*.run"))) == len(list(two.parent.glob("step-*.run"))) > 0
    files = [output / "evaluation-base" / "tiny" / "measures.json" for output in outputs.values()]
    of_one, of_two = (json.loads(file.read_text())["measures"] for file in files)
    assert of_one == of_two
    assert not (outputs[2] / ".finishing").exists()
