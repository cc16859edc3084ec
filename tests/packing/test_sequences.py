import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.packing.sequences import Packer, Rows

EOS = 0

documents_strategy = st.lists(st.lists(st.integers(1, 60_000), max_size=30), max_size=30)


def naive(
    documents: list[list[int]], length: int
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """The obviously right packing: rows, starts a row, documents a row."""
    flat: list[int] = []
    owner: list[int] = []
    begins = []
    for number, document in enumerate(documents):
        begins.append(len(flat))
        flat += [*document, EOS]
        owner += [number] * (len(document) + 1)
    cuts = range(0, len(flat) // length * length, length)
    rows = [flat[at : at + length] for at in cuts]
    starts = [[b - at for b in begins if at <= b < at + length] for at in cuts]
    inside = [sorted(set(owner[at : at + length])) for at in cuts]
    return rows, starts, inside


def packed(
    documents: list[list[int]], length: int, *, batch: int = 7, at_once: int = 1
) -> tuple[Packer, list[Rows]]:
    packer = Packer(sequence_length=length, eos_id=EOS, dtype=np.uint16, rows_at_once=at_once)
    parts = []
    for at in range(0, len(documents), batch):
        some = documents[at : at + batch]
        flat = np.array([i for d in some for i in d], np.uint16)
        parts.append(packer.add(flat, np.array([len(d) for d in some], np.int64)))
        assert packer.leftover_tokens < at_once * length, "more is held than what fills no group"
    return packer, [*parts, packer.finish()]


def told(parts: list[Rows]) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    rows: list[list[int]] = [row for part in parts for row in part.ids.tolist()]
    starts = [
        part.starts[a:b].tolist()
        for part in parts
        for a, b in zip(part.starts_offsets, part.starts_offsets[1:], strict=False)
    ]
    inside = [
        list(range(a, b + 1))
        for part in parts
        for a, b in zip(part.first_document.tolist(), part.last_document.tolist(), strict=True)
    ]
    return rows, starts, inside


@given(documents_strategy, st.integers(2, 40), st.integers(1, 9), st.integers(1, 4))
@pytest.mark.slow
def test_packing_equals_a_plain_concatenation(
    documents: list[list[int]], length: int, batch: int, at_once: int
) -> None:
    packer, parts = packed(documents, length, batch=batch, at_once=at_once)
    assert told(parts) == naive(documents, length)
    total = sum(len(d) + 1 for d in documents)
    assert packer.leftover_tokens == total % length
    assert all(len(part.ids) % at_once == 0 for part in parts[:-1])


@given(documents_strategy, st.integers(2, 40))
def test_packing_conserves_tokens_and_closes_each_document_with_one_eos(
    documents: list[list[int]], length: int
) -> None:
    packer, parts = packed(documents, length)
    rows, starts, inside = told(parts)
    flat = [i for row in rows for i in row]
    assert len(flat) + packer.leftover_tokens == sum(map(len, documents)) + len(documents)
    begins = [n * length + s for n, row in enumerate(starts) for s in row]
    assert all(at == 0 or flat[at - 1] == EOS for at in begins)
    assert flat.count(EOS) in (len(begins), len(begins) - 1)  # the last may be cut by the end of the shard
    assert len(begins) + packer.leftover_documents == len(documents)
    assert all(len(s) <= len(d) <= len(s) + 1 for s, d in zip(starts, inside, strict=True))


@pytest.mark.parametrize("documents", [[], [[]], [[1, 2]]])
def test_packing_too_little_for_a_row_gives_none(documents: list[list[int]]) -> None:
    packer, parts = packed(documents, 4)
    assert [len(p.ids) for p in parts] == [0] * len(parts)
    assert packer.leftover_tokens == sum(len(d) + 1 for d in documents)
    assert packer.leftover_documents == len(documents)
