from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.dedup.config import DedupConfig
from tasks.dedup.index import MEMORY_BYTES, Index, least_equal
from tasks.dedup.lsh import BUCKET_LIMIT, EXACT, KEPT, NEAR
from tasks.dedup.minhash import permutations
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


LIMITS = st.sampled_from([1, 3, BUCKET_LIMIT])
MEMORY = st.sampled_from([0, MEMORY_BYTES])  # buckets in files, or in memory


@given(DOCUMENTS, st.lists(st.integers(0, 40), max_size=6), LIMITS, MEMORY)
@pytest.mark.slow
def test_verdicts_are_those_of_all_pairs_however_the_documents_are_cut(
    documents: list[Document], cuts: list[int], limit: int, memory_bytes: int
) -> None:
    """dedup(A, then B) = dedup(A + B): growth never changes a verdict."""
    index = Index(8, SMALL, bucket_limit=limit, memory_bytes=memory_bytes)
    verdicts, at = [], 0
    for cut in [*sorted(cuts), len(documents)]:
        verdicts += judge(index, documents[at:cut], at)
        at = max(at, cut)
    assert verdicts == expected(documents, limit)


@given(DOCUMENTS, st.integers(0, 40), LIMITS, MEMORY)
@pytest.mark.slow
def test_index_read_back_answers_as_the_one_that_was_carried(
    documents: list[Document], cut: int, limit: int, memory_bytes: int
) -> None:
    before = expected(documents, limit)[:cut]
    index = Index(8, SMALL, bucket_limit=limit, memory_bytes=memory_bytes)
    for number, (reason, _) in enumerate(before):
        if reason is None:
            index.extend(*arrays(documents[number : number + 1], number))
    assert judge(index, documents[cut:], len(before)) == expected(documents, limit)[cut:]


@pytest.mark.parametrize("threshold", [0.7, 0.75, 0.1, 1.0, 1e-9])
def test_least_equal_is_the_first_count_that_reaches_the_threshold(threshold: float) -> None:
    for num_perm in (1, 10, 128):
        equal = least_equal(threshold, num_perm)
        assert equal / num_perm >= threshold > (equal - 1) / num_perm


def strangers(count: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint64], pa.Array]:
    """Unlike documents of 128 slots; ids are numbers."""
    generator = np.random.default_rng(seed)
    return (
        frozen(generator.integers(0, 2**32, (count, 128), dtype=np.uint32)),
        frozen(generator.integers(0, 2**64, (count, 2), dtype=np.uint64)),
        pa.array(np.arange(count) + seed * count).cast(pa.string()),
    )


def edited(signatures: NDArray[np.uint32], slots: int) -> NDArray[np.uint32]:
    """Near copies: the last slots are others."""
    copies = signatures.copy()
    copies[:, -slots:] ^= 1
    return frozen(copies)


@pytest.mark.slow
def test_buckets_take_210_bytes_a_document_and_no_more_than_they_may() -> None:
    """Beyond the bound they lie in files, with the same answers: each copy names its original."""
    count, batches, bound = 4_000, 10, 2_000_000
    free, bound_to = Index(128, DedupConfig()), Index(128, DedupConfig(), memory_bytes=bound)
    for batch in range(batches):
        documents = strangers(count, batch)
        for index in (free, bound_to):
            assert (index.resolve(*documents).verdicts == KEPT).all()
            assert index.num_docs == count * (batch + 1)
        assert bound_to.memory_bytes <= bound + 220 * count  # a batch's own part is in memory
    assert 200 < free.memory_bytes / free.num_docs < 220
    assert bound_to.file_bytes - free.file_bytes > free.memory_bytes - bound
    for batch in range(batches):
        signatures, exact, ids = strangers(count, batch)
        for index in (free, bound_to):
            again = index.resolve(edited(signatures, 20), frozen(exact + np.uint64(1)), ids)
            assert (again.verdicts == NEAR).all()
            assert again.duplicate_of.equals(ids)
            again = index.resolve(edited(signatures, 128), exact, ids)
            assert (again.verdicts == EXACT).all()
            assert again.duplicate_of.equals(ids)


def test_boilerplate_costs_the_same_for_every_document_once_its_buckets_are_full() -> None:
    """Pages that share most bands with all others and are copies of none."""
    index, compared = Index(128, DedupConfig(), bucket_limit=50), [0]
    for batch in range(8):
        signatures, exact, ids = strangers(1_000, batch)
        pages = signatures.copy()
        pages[:, :80] = np.arange(80)  # 16 of 25 bands, similarity .625
        assert (index.resolve(frozen(pages), exact, ids).verdicts == KEPT).all()
        compared.append(index.num_compared)
    per_batch = np.diff(compared)
    # The 16 full buckets hold the same 50 pages: a pair is compared once.
    assert per_batch.tolist() == [50 * 49 // 2 + 950 * 50] + [1_000 * 50] * 7


@pytest.mark.parametrize(("alike", "least"), [(0.77, 0.99), (0.8, 0.995), (0.85, 0.999)])
@pytest.mark.slow
def test_copies_of_template_pages_are_found_although_the_template_fills_its_buckets(
    alike: float, least: float
) -> None:
    """Pages alike by .6 fill the buckets of the template; what a copy shares beyond it still finds it."""
    generator, pages, shared, words = np.random.default_rng(2), 3_000, 225, 300
    texts = generator.integers(0, 2**32, (pages, words), dtype=np.uint32)
    texts[:, :shared] = texts[0, :shared]
    exact = frozen(generator.integers(0, 2**64, (2 * pages, 2), dtype=np.uint64))
    ids = pa.array(np.arange(pages)).cast(pa.string())
    index = Index(128, DedupConfig(), bucket_limit=20)
    late = np.flatnonzero(index.resolve(sets_signed(texts), exact[:pages], ids).verdicts == KEPT)[-1_000:]
    copies = texts[late]
    for copy in copies:
        changed = round(words * (1 - alike) / (1 + alike))
        copy[generator.choice(words, changed, replace=False)] = generator.integers(0, 2**32, changed)
    reached = (sets_signed(copies) == sets_signed(texts[late])).mean(axis=1) >= 0.7
    assert reached.mean() > 0.9
    originals = ids.take(pa.array(late[reached]))
    found = index.resolve(sets_signed(copies[reached]), exact[pages : pages + len(originals)], originals)
    own = pc.equal(found.duplicate_of, originals).fill_null(False)
    assert own.to_numpy(zero_copy_only=False).mean() >= least
    # The buckets were full before those pages came.
    members = (sets_signed(texts)[:1_000, :125].reshape(1_000, 25, 5) == template_bands(texts, shared)).all(
        axis=2
    )
    assert (members.sum(axis=0) >= 20).sum() > 20


def sets_signed(texts: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """(num_docs, 128) of (num_docs, shingles) hashes."""
    factors, offsets = permutations(128)
    slots = [(texts * a + b).min(axis=1) for a, b in zip(factors, offsets, strict=True)]
    return frozen(np.stack(slots, axis=1))


def template_bands(texts: NDArray[np.uint32], shared: int) -> NDArray[np.uint32]:
    """(25, 5), the band values of a page that were the template alone."""
    return sets_signed(texts[:1, :shared])[0, :125].reshape(25, 5)
