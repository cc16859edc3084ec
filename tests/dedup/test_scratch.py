import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.dedup.scratch import ScratchArray, ScratchTexts
from tasks.runtime.memory import resident_bytes


def test_values_stay_when_the_array_grows_and_is_forgotten(tmp_path: Path) -> None:
    made = ScratchArray(np.uint32, (3,), tmp_path)
    for rows in (2, 5, 7000):
        before = made.array[: rows // 3].copy()
        made.reserve(rows)
        np.testing.assert_array_equal(made.array[: len(before)], before)
        made.array[:rows] = np.arange(rows * 3).reshape(rows, 3)
        made.forget()
        np.testing.assert_array_equal(made.array[:rows].reshape(-1), np.arange(rows * 3))
    assert made.file_bytes == made.array.nbytes >= 7000 * 12


def test_files_have_no_name_that_a_killed_process_would_leave(tmp_path: Path) -> None:
    made = ScratchArray(np.uint8, (), tmp_path)
    made.reserve(1 << 20)
    made.array[:] = 1
    assert list(tmp_path.iterdir()) == []


def test_forgotten_pages_are_no_memory_of_the_process(tmp_path: Path) -> None:
    made = ScratchArray(np.uint8, (), tmp_path)
    made.reserve(64 << 20)
    before = resident_bytes()
    made.array[:] = 7
    assert resident_bytes() - before > 60 << 20
    made.forget()
    assert resident_bytes() - before < 4 << 20
    assert made.array[::4096].min() == 7


@pytest.fixture
def files_of_a_megabyte() -> Iterator[None]:
    """No file of this process may be longer: what a full disk is, of our own making."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("files_of_a_megabyte")
def test_no_room_on_the_disk_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    made = ScratchArray(np.uint8, (), tmp_path)
    made.reserve(1 << 20)
    made.array[-1] = 5
    with pytest.raises(OSError, match="too large"):
        made.reserve(2 << 20)
    assert made.array[-1] == 5


@given(st.lists(st.lists(st.text(max_size=5), max_size=4), max_size=6))
def test_texts_come_back_by_row_whatever_batches_they_came_in(batches: list[list[str]]) -> None:
    made, texts = ScratchTexts(), [text for batch in batches for text in batch]
    for batch in batches:
        # as the slice of a longer column, which ids are
        made.extend(pa.array(["before", *batch], pa.string())[1:])
    rows = np.arange(len(texts), dtype=np.int32)[::-1]
    assert made.take(rows).to_pylist() == texts[::-1]
