"""Why each candidate was kept or dropped: one JSON line for each candidate, beside the run that was mined."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ConfigDict, FiniteFloat, TypeAdapter, ValidationError

from ..data.jsonl import read_lines
from ..data.passages import passage_id
from ..data.trec import tag_of_run
from ..errors import InputError
from ..files import FileKind, check_file, first_line


# Neither class is frozen: creating a frozen object takes twice as long, and there are millions.
@dataclass(kw_only=True, slots=True)
class FilterVerdict:
    """One filter's decision. value, limit: the two numbers that it compared, for a filter that compares numbers."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    name: str
    keep: bool
    value: FiniteFloat | None = None
    limit: FiniteFloat | None = None


@dataclass(kw_only=True, slots=True)
class Evidence:
    """One candidate of one query.

    passage: the number of the candidate's passage that scores best, where documents are split.
    source, rank: the retriever that brought it, and its rank there. also: its ranks in other sources.
    mined: the source's score, in the source's units.
    score, positive_score: the model's scores of the candidate and of the query's lowest-scored positive.
    teacher, positive_teacher: the same scores by the teacher; None without a teacher.
    positive_id: the lowest-scored positive, by the teacher where there is one.
    positives_teacher: the teacher's score of every positive of a query that has several, on the query's first line
        only; repeated on every line it would make up most of the file.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    query_id: str
    doc_id: str
    passage: int | None = None
    source: str
    rank: int
    also: dict[str, int] = field(default_factory=dict)
    mined: FiniteFloat
    score: FiniteFloat
    positive_id: str
    positive_score: FiniteFloat
    teacher: FiniteFloat | None = None
    positive_teacher: FiniteFloat | None = None
    positives_teacher: dict[str, FiniteFloat] = field(default_factory=dict)
    keep: bool
    filters: tuple[FilterVerdict, ...] = ()

    @property
    def item_id(self) -> str:
        """The candidate's id in the corpus that is trained on: its passage's, or its own."""
        return self.doc_id if self.passage is None else passage_id(self.doc_id, self.passage)

    @property
    def reference(self) -> float:
        """The score that filters decided by: the teacher's where there is one, else the model's."""
        return self.score if self.teacher is None else self.teacher

    @property
    def positive_reference(self) -> float:
        """The query's lowest positive, scored by the same model as `reference`."""
        return self.positive_score if self.positive_teacher is None else self.positive_teacher

    @property
    def gap(self) -> float:
        """The positive's reference score minus the candidate's; below 0 the candidate scores higher."""
        return self.positive_reference - self.reference


_LINE = TypeAdapter(Evidence)


@dataclass(frozen=True)
class MiningFiles:
    """The files of one mining: the run, its evidence (.jsonl) and its summary (.json), side by side."""

    run: Path

    @property
    def evidence(self) -> Path:
        return self.run.with_suffix(".jsonl")

    @property
    def summary(self) -> Path:
        return self.run.with_suffix(".json")

    @property
    def complete(self) -> bool:
        """Whether all three are written: the summary comes last."""
        return self.summary.exists()


def check_output(files: MiningFiles, *, overwrite: bool) -> None:
    """Raises InputError unless run, evidence and summary may be written: absent, or earlier results of `mine`.

    Evidence and a summary without their run are the remains of a job that was killed at its end.
    """
    if files.run.suffix in (".json", ".jsonl"):
        raise InputError(
            f"{files.run}: is the run's name; its evidence (.jsonl) and summary (.json) go beside it: end it in .run"
        )
    mined = FileKind(verb="mine", wrote=lambda run: tag_of_run(run) != "" and files.evidence.exists())
    check_file(files.run, mined, overwrite=overwrite)
    for path, wrote in ((files.evidence, _holds_evidence), (files.summary, _holds_summary)):
        check_file(path, FileKind(verb="mine", wrote=wrote), overwrite=True)


def _holds_evidence(path: Path) -> bool:
    return first_line(path).replace(" ", "").startswith('{"query_id":')  # a line may be longer than what is read


def _holds_summary(path: Path) -> bool:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(summary, dict) and summary.keys() >= {"data", "encoder", "negatives", "report"}


def files_of(path: str | Path) -> MiningFiles:
    """The files of mined negatives, named by run or evidence. Raises InputError where there is no evidence."""
    named = Path(path)
    if not named.name:
        raise InputError(f"{path}: expected a .run file that `embedtune mine` wrote, got a folder")
    files = MiningFiles(named.with_suffix(".run") if named.suffix in (".jsonl", ".json") else named)
    if not files.evidence.is_file():
        raise InputError(f"{path}: no evidence ({files.evidence.name}) beside it; mine it with `embedtune mine`")
    return files


def as_line(evidence: Evidence) -> str:
    """One line of a .jsonl file; what is absent or empty is left out."""
    return _LINE.dump_json(evidence, exclude_defaults=True).decode() + "\n"


def read_evidence(path: Path) -> Iterator[Evidence]:
    """The candidates of a .jsonl file, one by one. Raises InputError that names the first wrong line."""
    for number, line in read_lines(path):
        try:
            yield _LINE.validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            problem = ": ".join([*map(str, first["loc"]), first["msg"]])
            raise InputError(f"{path}:{number}: not evidence of `embedtune mine` ({problem})") from None
