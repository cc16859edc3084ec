"""A column of text as arrays: the bytes of each document, whatever the column's type, slice and nulls."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text.columns import text_buffers


def documents(column: pa.Array) -> list[bytes]:
    offsets, data = text_buffers(column)
    assert (offsets.dtype, data.dtype) == (np.int64, np.uint8)
    assert int(offsets[0]) == 0
    assert int(offsets[-1]) == len(data)
    return [bytes(data[a:b]) for a, b in itertools.pairwise(offsets)]


@given(
    st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=8),
    st.sampled_from([pa.string(), pa.large_string()]),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_a_document_is_its_bytes_and_a_null_is_empty(
    texts: list[str | None], kind: pa.DataType, first: int, count: int
) -> None:
    for column, expected in (
        (pa.array(texts, kind), texts),
        (pa.array(texts, kind).slice(first, count), texts[first : first + count]),
        (pa.array(texts, kind).slice(first).slice(1), texts[first:][1:]),
    ):
        assert documents(column) == [(text or "").encode() for text in expected]


def test_bytes_behind_a_null_are_not_read() -> None:
    """Arrow lets them lie there: a null made by a mask keeps what it hid."""
    plain = pa.array(["seen", "hidden", "seen too"])
    mask = pa.array([True, False, True]).buffers()[1]
    column = pa.Array.from_buffers(pa.string(), 3, [mask, *plain.buffers()[1:]])
    assert column.null_count == 1
    assert documents(column) == [b"seen", b"", b"seen too"]
    assert documents(column.slice(1)) == [b"", b"seen too"]


@pytest.mark.parametrize("column", [pa.array([b"bytes"]), pa.array([1]), pa.array(["a"]).dictionary_encode()])
def test_a_column_that_is_no_text_is_refused(column: pa.Array) -> None:
    with pytest.raises(TypeError, match="expected string or large_string"):
        text_buffers(column)
