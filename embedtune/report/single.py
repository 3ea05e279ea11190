"""The report of one run, and the part of it that a model card holds."""

from __future__ import annotations

from .document import Code, Document, Section
from .guard import guard_section
from .negatives import negatives_section, spread_section
from .outcome import mteb_section, outcome_section, queries_section
from .pictures import Pictures
from .record import Record
from .setting import again_section, subtitle, training_section


def run_document(record: Record) -> Document:
    """Everything that the run folder holds, drawn. Needs matplotlib."""
    pictures = Pictures()
    spread, notes = spread_section(record)
    sections = [
        outcome_section(record),
        guard_section(record.guard) if record.guard else None,
        mteb_section(record),
        training_section(record),
        negatives_section(record, pictures),
        spread,
        queries_section(record, pictures),
        again_section(record),
    ]
    if pictures.left_out:
        notes.append(
            f"{pictures.left_out} pictures are left out: they cannot be opened, or the page has enough of them."
        )
    return _document(record, sections, notes)


def card_document(record: Record) -> Document:
    """What a model's users need: no figures, and no texts of the data, which may not be theirs to read."""
    sections = [
        _use_section(record),
        outcome_section(record, drawn=False),
        guard_section(record.guard, drawn=False) if record.guard else None,
        mteb_section(record),
        training_section(record, drawn=False),
        again_section(record),
    ]
    return _document(record, sections, [])


def _use_section(record: Record) -> Section:
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f"model = SentenceTransformer({str(record.folder / 'model')!r})",
        'queries = model.encode_query(["what is searched for"])',
        'documents = model.encode_document(["what is found"])',
        "print(model.similarity(queries, documents))",
    ]
    return Section("How to use it", [Code("\n".join(lines), "python")])


def _document(record: Record, sections: list[Section | None], notes: list[str]) -> Document:
    compared = record.compared.notes if record.compared else []
    return Document(
        title=record.name,
        subtitle=subtitle(record.recipe),
        sections=[section for section in sections if section is not None],
        notes=[*record.missing, *compared, *notes],
    )
