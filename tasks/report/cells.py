"""What a table is made of: a cell is a value and how it is written. Pure."""

from dataclasses import dataclass

from tasks.report.numbers import bytes_text, count_text, duration_text
from tasks.report.verdict import Kind


@dataclass(frozen=True, slots=True)
class Cell:
    """A value and how it is written."""

    text: str
    value: float | str | None = None
    note: str = ""
    """A few words beside it, set smaller."""
    kind: Kind | None = None
    """Colours a difference; the note says the same in words."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, and whether numbers stand in it (set right, in figures of one width)."""

    title: str
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; a row has a cell a column."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences under it."""


def count(value: float | None) -> Cell:
    """A whole number."""
    return Cell(count_text(value), value)


def size(value: float | None) -> Cell:
    """Bytes."""
    return Cell(bytes_text(value), value)


def duration(seconds: float | None) -> Cell:
    """A time."""
    return Cell(duration_text(seconds), seconds)
