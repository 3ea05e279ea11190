"""What a user sees: results on stdout, everything else on stderr, and no control character of the data in either."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from embedtune import distributed

REDRAWS = 3  # of a bar, in a second
# Control characters that drive a terminal, overrides of the writing direction, and halves of surrogate pairs, which no
# encoding has. Written as JSON writes them, so that JSON keeps its meaning. Line breaks and tabs stay.
_ESCAPES = {
    code: f"\\u{code:04x}"
    for span in ((0x00, 0x20), (0x7F, 0xA0), (0x202A, 0x202F), (0x2066, 0x206A), (0xD800, 0xE000))
    for code in range(*span)
    if chr(code) not in "\n\t"
}
_FOLDED = 16  # characters of a column of texts on a terminal without room
_NOTED = 0.01  # the share of int8 values outside the calibration that a user is told of

Table = tuple[str, Sequence[str], Sequence[Sequence[object]]]
"""A title, the names of the columns, and the rows."""


def printable(text: str) -> str:
    """The text with control characters as escapes such as \\u001b: a title in a corpus must not drive the terminal."""
    return text.translate(_ESCAPES)


def say(text: str) -> None:
    """A line for the person who watches."""
    print(printable(text), file=sys.stderr, flush=True)


def say_outside(share: float) -> None:
    """A line where many values lay outside the calibration that they were stored by."""
    if share > _NOTED:
        say(f"{share:.1%} of the values lie outside the calibration and are stored as its ends; calibrate by documents "
            "like these, with --calibrate or by storing all of them again")  # fmt: skip


def show_text(text: str) -> None:
    """A result that is text, such as Markdown or YAML."""
    print(printable(text), end="")


def show_json(value: object) -> None:
    print(printable(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)))


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, as_json: bool, title: str | None = None
) -> None:
    """A result: JSON objects if asked for, a table on a terminal, else TSV. Only JSON has every digit."""
    if as_json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif sys.stdout.isatty():
        _show_rich_table(columns, rows, title)
    else:
        for row in [columns, *rows]:
            print("\t".join(" ".join(_plain(cell).split()) for cell in row))


def show_tables(tables: Sequence[Table]) -> None:
    """A result of several tables, a blank line between them. In TSV `# title` precedes each."""
    for number, (title, columns, rows) in enumerate(tables):
        if number:
            print()
        if not sys.stdout.isatty():
            print(f"# {printable(title)}")
        show_table(columns, rows, as_json=False, title=title)


def views_of(table: Table, views: Mapping[str, Sequence[str]]) -> list[Table]:
    """A table with more columns than a terminal has room for: on a terminal one table for each view (title -> columns).

    Columns without a value are left out, and so are views with nothing beside the first three columns, which name the
    row.
    """
    title, columns, rows = table
    filled = [name for index, name in enumerate(columns) if any(row[index] is not None for row in rows)]
    tables: list[Table] = []
    for view, names in views.items() if sys.stdout.isatty() else [(title, columns)]:
        indices = [columns.index(name) for name in names if name in filled]
        if len(indices) > 3:
            shown = [columns[index] for index in indices]
            tables.append((view, shown, [[row[index] for index in indices] for row in rows]))
    return tables


def _plain(cell: object) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, float):
        return printable(str(cell))
    return f"{round(cell, 6):.6g}" if abs(cell) >= 1e-4 else f"{cell:.3g}"


def _show_rich_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None) -> None:
    """Numbers and the words of a header are never broken: columns without room go on in a table below, which repeats
    the first columns of texts."""
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, names = Console(), list(map(printable, columns))
    cells = [[f"{cell:.4f}" if isinstance(cell, float) else _plain(cell) for cell in row] for row in rows]
    numeric = [any(isinstance(row[at], int | float) for row in rows) for at in range(len(names))]
    widths = []  # that a column needs at least; texts may be folded
    for at, name in enumerate(names):
        longest = max((cell_len(row[at]) for row in cells), default=0)
        header = max(map(cell_len, name.split()), default=0)
        widths.append(max(header, longest if numeric[at] else min(longest, _FOLDED)))
    heading = None if title is None else Text(printable(title), style="bold")
    for part in _parts(widths, numeric, console.width):
        table = Table(title=heading, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for at in part:
            side: Literal["left", "right"] = "right" if numeric[at] else "left"
            table.add_column(Text(names[at]), justify=side, overflow="fold", min_width=widths[at])
        for row in cells:
            # As Text, so that a document's square brackets are not taken for markup.
            table.add_row(*(Text(row[at]) for at in part))
        console.print(table)
        heading = None


def _parts(widths: Sequence[int], numeric: Sequence[bool], room: int) -> list[list[int]]:
    """The columns of each table that fits into the room, two characters beside each column."""
    first = next((at for at, of_numbers in enumerate(numeric) if of_numbers), len(widths))
    parts = [list(range(first))]
    for at in range(first, len(widths)):
        if len(parts[-1]) > first and sum(widths[c] + 2 for c in [*parts[-1], at]) > room:
            parts.append(list(range(first)))
        parts[-1].append(at)
    return parts


def say_left_out(left_out: Sequence[str]) -> None:
    """Names the items that a command goes on without."""
    for sentence in left_out:
        say(f"left out: {sentence}")


def say_missing_images(faults: Sequence[str]) -> None:
    """Says that images which a result names cannot be shown."""
    if faults:
        say(f"note: {len(faults):,} of the images cannot be read, the first {faults[0]}")


@contextmanager
def progress(description: str) -> Iterator[Callable[..., None]]:
    """Gives on_progress(done, total, description=None, whole=None), which moves a bar on stderr and says what it is of.

    whole: the share of a run that is done, and its time left in words; shown as a bar of its own below the phase's.
    Without a terminal there is no bar, and of several processes one shows it.
    """
    if not sys.stderr.isatty() or not distributed.leads():
        yield lambda done, total, description=None, whole=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), _count_column(), _left_column())
    # stdout may be a pipe that wants the results: only stderr goes through the bar's console.
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, refresh_per_second=REDRAWS) as bar:
        bar.add_task(printable(description), total=None)
        task = bar.tasks[0]

        def show(
            done: float, total: float | None, description: str | None = None, whole: tuple[float, str] | None = None
        ) -> None:
            name = None if description is None else printable(description)
            task.total = total  # set here, because update() takes None for no change
            if name is not None and name.partition(":")[0] != task.description.partition(":")[0]:
                bar.reset(task.id, description=name)  # another phase: its time left is not that of the one before
            bar.update(task.id, completed=done, description=name)
            if whole is not None:
                if len(bar.tasks) == 1:
                    bar.add_task("whole run", total=1.0, left="", percent=True)
                    task.fields["left"] = ""  # the phase's own would contradict it
                bar.update(bar.tasks[1].id, completed=whole[0], left=whole[1])

        yield show


def _count_column() -> Any:
    """`12/40` of a phase; the percentage of a whole run."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.fields.get("percent"):
                return Text(f"{task.percentage:.0f}%", style="progress.percentage")
            total = "?" if task.total is None else f"{task.total:,.0f}"
            return Text(f"{task.completed:,.0f}/{total}", style="progress.download")

    return Count()


def _left_column() -> Any:
    """The time left: of a phase by its own pace, of a whole run as it is told."""
    from rich.progress import Task, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Left(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            return Text(str(task.fields["left"])) if "left" in task.fields else super().render(task)

    return Left(table_column=Column(no_wrap=True))
