"""Micro-batches against the rows that the order names, read in a thread of their own."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.store.errors import SourceError
from tasks.store.node import Node
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.training.data import Batches
from tasks.training.order import SequenceOrder

pytestmark = pytest.mark.train

ORDER = SequenceOrder(seed=3, borders=(60,), global_batch=12, window=100_000)


class Watched(PackedCorpus):
    """A corpus that notes who reads which rows."""

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.uint16 | np.uint32]:
        self.__dict__.setdefault("readers", set()).add(threading.get_ident())
        self.__dict__.setdefault("read", []).append(indices.tolist())
        return super().rows(indices)


@pytest.fixture
def corpus(tmp_path: Path, make_corpus: Callable[[Store, int], Node]) -> Iterator[Watched]:
    store = Store(str(tmp_path / "store"))
    with Watched(store, make_corpus(store, 60).path) as found:
        yield found


def batches(corpus: PackedCorpus, *, rank: int = 0, ranks: int = 1, vocab_size: int = 64) -> Batches:
    device = torch.device("cpu")
    given = {"micro_batch": 3, "vocab_size": vocab_size, "device": device}
    return Batches(corpus, ORDER, rank=rank, ranks=ranks, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_of_a_step_see_its_rows_whatever_their_number(corpus: Watched, ranks: int) -> None:
    seen = []
    for rank in range(ranks):
        with batches(corpus, rank=rank, ranks=ranks) as mine:
            for given in [*mine.of_step(2), *mine.of_step(3)][: 12 // ranks // 3]:
                ids = given["input_ids"]
                assert ids.shape == (3, corpus.sequence_length)
                assert ids.dtype == torch.int64
                seen.append(ids)
    expected = corpus.rows(ORDER.batch_rows(2)).astype(np.int64)
    assert torch.equal(torch.cat(seen), torch.from_numpy(expected))


def test_the_next_step_is_read_while_one_is_computed_by_one_thread_and_never_twice(corpus: Watched) -> None:
    with batches(corpus) as mine:
        for step in range(5):
            ids = mine.of_step(step)
            next(ids)  # here a step is computed
    assert corpus.__dict__["read"] == [ORDER.batch_rows(step).tolist() for step in range(5)]
    assert len(corpus.__dict__["readers"]) == 1
    assert threading.get_ident() not in corpus.__dict__["readers"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_an_order_that_was_not_foreseen_is_read_too(corpus: Watched) -> None:
    with batches(corpus) as mine:
        ids = [torch.cat([given["input_ids"] for given in mine.of_step(step)]) for step in (0, 3, 0)]
    assert torch.equal(ids[0], ids[2])
    assert not torch.equal(ids[0], ids[1])


def test_an_id_beyond_the_embedding_is_told_to_who_computes(corpus: Watched) -> None:
    with (
        batches(corpus, vocab_size=63) as mine,
        pytest.raises(SourceError, match="the corpus has token id 63, the model's embedding 63 rows"),
    ):
        list(mine.of_step(0))
