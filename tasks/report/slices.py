"""What is to be known of the held-out slices beside their scores. Pure."""

from tasks.report.cells import Cell, Column, Table
from tasks.report.facts import Overlap
from tasks.report.numbers import count_text, percent_text


def overlap_table(overlaps: list[Overlap]) -> Table:
    """A row a slice: how much of it stands, nearly the same, in what the other corpus trains on."""
    rows, notes = [], []
    for overlap in overlaps:
        other = "general text that is replayed" if overlap.corpus == "domain" else "domain corpus"
        share = overlap.near / overlap.documents if overlap.documents else None
        rows.append(
            (
                Cell(f"{overlap.corpus} slice, {other}", overlap.corpus),
                Cell(count_text(overlap.documents), overlap.documents),
                Cell(count_text(overlap.near), overlap.near),
                Cell(percent_text(share), share),
            )
        )
        have = "has a near-duplicate" if overlap.near == 1 else "have a near-duplicate"
        notes.append(
            f"{count_text(overlap.near)} of {count_text(overlap.documents)} documents of the "
            f"{overlap.corpus} slice {have} in the {other}."
        )
    columns = (Column("Slice", numeric=False), *map(Column, ("Documents", "Near-duplicates", "Share")))
    title = "What the held-out slices share with the other corpus"
    return Table("overlap", title, columns, tuple(rows), tuple(notes))
