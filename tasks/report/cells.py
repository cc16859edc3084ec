"""What a table is made of: a cell is a value and how it is written. Pure."""

from dataclasses import dataclass

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
