from typing import TypeVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.dedup.config import DedupConfig
from tasks.dedup.index import Index, least_equal
from tasks.dedup.lsh import BUCKET_LIMIT, EXACT, KEPT, NEAR
from tests.oracles import minhash as oracle

SMALL = DedupConfig(num_perm=8, num_bands=3, rows_per_band=2, threshold=0.6)
REASONS = {KEPT: None, EXACT: "exact", NEAR: "near"}

T = TypeVar("T", bound=np.generic)
Document = tuple[list[int], int]
DOCUMENTS = st.lists(
    st.tuples(
        st.one_of(st.lists(st.integers(0, 2), min_size=8, max_size=8), st.just([2**32 - 1] * 8)),
        st.integers(0, 60),
    ),
    max_size=40,
)


def frozen(array: NDArray[T]) -> NDArray[T]:
    """Read-only, as what comes from the store is: one version of each kernel then serves all."""
    array.flags.writeable = False
    return array


def arrays(documents: list[Document], first: int) -> tuple[NDArray[np.uint32], NDArray[np.uint64], pa.Array]:
    signatures = np.array([row for row, _ in documents], np.uint32).reshape(-1, 8)
    exact = np.array([(number, number) for _, number in documents], np.uint64).reshape(-1, 2)
    ids = pa.array([str(first + i) for i in range(len(documents))], pa.string())
    return frozen(signatures), frozen(exact), ids


def judge(index: Index, documents: list[Document], first: int = 0) -> list[tuple[str | None, int | None]]:
    found = index.resolve(*arrays(documents, first))
    names = found.duplicate_of.to_pylist()
    return [
        (REASONS[verdict], None if name is None else int(name))
        for verdict, name in zip(found.verdicts.tolist(), names, strict=True)
    ]


def expected(documents: list[Document], limit: int) -> list[tuple[str | None, int | None]]:
    return oracle.dedup(
        [row for row, _ in documents],
        [number.to_bytes(16, "little") for _, number in documents],
        threshold=SMALL.threshold,
        num_bands=SMALL.num_bands,
        rows_per_band=SMALL.rows_per_band,
        bucket_limit=limit,
    )


@given(DOCUMENTS, st.lists(st.integers(0, 40), max_size=3), st.sampled_from([1, 3, BUCKET_LIMIT]))
@pytest.mark.slow
def test_verdicts_are_those_of_all_pairs_however_the_documents_are_cut(
    documents: list[Document], cuts: list[int], limit: int
) -> None:
    """dedup(A, then B) = dedup(A + B): growth never changes a verdict."""
    index, verdicts, at = Index(8, SMALL, bucket_limit=limit), [], 0
    for cut in [*sorted(cuts), len(documents)]:
        verdicts += judge(index, documents[at:cut], at)
        at = max(at, cut)
    assert verdicts == expected(documents, limit)


@given(DOCUMENTS, st.integers(0, 40), st.sampled_from([1, 3, BUCKET_LIMIT]))
@pytest.mark.slow
def test_index_read_back_answers_as_the_one_that_was_carried(
    documents: list[Document], cut: int, limit: int
) -> None:
    before = expected(documents, limit)[:cut]
    index = Index(8, SMALL, bucket_limit=limit)
    for number, (reason, _) in enumerate(before):
        if reason is None:
            index.extend(*arrays(documents[number : number + 1], number))
    assert judge(index, documents[cut:], len(before)) == expected(documents, limit)[cut:]


@pytest.mark.parametrize("threshold", [0.7, 0.75, 0.1, 1.0, 1e-9])
def test_least_equal_is_the_first_count_that_reaches_the_threshold(threshold: float) -> None:
    for num_perm in (1, 10, 128):
        equal = least_equal(threshold, num_perm)
        assert equal / num_perm >= threshold > (equal - 1) / num_perm


@pytest.mark.slow
def test_unlike_documents_take_a_kilobyte_each_and_all_are_found_again() -> None:
    generator, count, batch = np.random.default_rng(0), 40_000, 5_000
    index = Index(128, DedupConfig())
    for first in range(0, count, batch):
        signatures = frozen(generator.integers(0, 2**32, (batch, 128), dtype=np.uint32))
        exact = frozen(generator.integers(0, 2**64, (batch, 2), dtype=np.uint64))
        ids = pa.array(np.arange(first, first + batch)).cast(pa.string())
        assert (index.resolve(signatures, exact, ids).verdicts == KEPT).all()
    assert index.num_docs == count
    assert index.num_bytes / count < 1400
    # The last batch again: nearly the same signatures, other texts.
    copies = signatures.copy()
    copies[:, -20:] = 0
    again = index.resolve(frozen(copies), frozen(exact + np.uint64(1)), ids)
    assert (again.verdicts == NEAR).all()
    assert again.duplicate_of.equals(ids)


def test_boilerplate_costs_linear_time() -> None:
    """Pages that share most bands with all others and are copies of none: buckets are full at their limit."""
    count, generator = 6_000, np.random.default_rng(1)
    signatures = generator.integers(0, 2**32, (count, 128), dtype=np.uint32)
    signatures[:, :80] = np.arange(80)  # 16 of 25 bands, similarity .625
    index = Index(128, DedupConfig(), bucket_limit=50)
    exact = frozen(generator.integers(0, 2**64, (count, 2), dtype=np.uint64))
    ids = pa.array(np.arange(count)).cast(pa.string())
    assert (index.resolve(frozen(signatures), exact, ids).verdicts == KEPT).all()
    tables = index._tables
    assert (tables.after[:count, :16] >= 0).sum() == 16 * 49
