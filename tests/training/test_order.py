import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.store.errors import RecipeError
from tasks.training.order import SequenceOrder, divide_batch, largest_divisor


def seen(order: SequenceOrder) -> list[int]:
    return np.concatenate([order.batch_rows(step) for step in range(order.num_steps)]).tolist()


def make(
    borders: tuple[int, ...], batch: int, *, window: int = 1000, seed: int = 1, epochs: int = 1
) -> SequenceOrder:
    return SequenceOrder(seed=seed, borders=borders, global_batch=batch, window=window, epochs=epochs)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=3),
    window=st.integers(1, 400),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**40),
)
@pytest.mark.slow
def test_each_row_is_seen_once_an_epoch_and_segment_by_segment(
    sizes: list[int], window: int, epochs: int, seed: int
) -> None:
    borders = tuple(int(end) for end in np.cumsum(sizes))
    rows = seen(make(borders, 1, window=window, epochs=epochs, seed=seed))
    assert len(rows) == epochs * borders[-1]
    at = 0
    for _ in range(epochs):
        for start, end in zip((0, *borders), borders, strict=False):
            assert sorted(rows[at : at + end - start]) == list(range(start, end))
            at += end - start


def test_a_larger_budget_begins_with_what_the_smaller_one_saw() -> None:
    small, large = make((100,), 8, window=30), make((100, 250), 8, window=30)
    assert seen(large)[: len(seen(small))] == seen(small)


def test_the_last_incomplete_batch_is_left_out_and_counted() -> None:
    order = make((100,), 8, epochs=2)
    assert (order.num_steps, order.left_out) == (25, 0)
    order = make((100,), 24)
    assert (order.num_steps, order.left_out) == (4, 4)


def test_seed_segment_and_epoch_each_give_another_order() -> None:
    rows = seen(make((200, 400), 1, epochs=2))
    parts = [rows[0:200], [row - 200 for row in rows[200:400]], rows[400:600], seen(make((200,), 1, seed=2))]
    assert len({tuple(part) for part in parts}) == 4
    assert parts[0] != sorted(parts[0])


def test_the_order_is_what_it_was() -> None:
    # numpy keeps the streams of Philox; a change here changes every training and needs a new VERSION
    assert seen(make((12,), 1, seed=17)) == EXPECTED_WHOLE
    assert seen(make((12,), 1, seed=17, window=4)) == EXPECTED_WINDOWS


EXPECTED_WHOLE = [7, 9, 3, 6, 2, 11, 10, 8, 0, 5, 4, 1]
EXPECTED_WINDOWS = [10, 11, 3, 5, 4, 8, 0, 9, 2, 6, 1, 7]


def test_a_window_gathers_blocks_from_the_whole_segment() -> None:
    rows = np.array(seen(make((10_000,), 1, window=1000)))
    first = rows[:1000]
    assert len(set((first // 10).tolist())) == 100  # whole blocks of a hundredth of the window
    assert first.max() - first.min() > 8000
    assert abs(np.corrcoef(np.arange(1000), first)[0, 1]) < 0.15


def test_a_milestone_of_less_than_a_batch_is_refused_with_both_numbers() -> None:
    with pytest.raises(RecipeError, match=r"milestone 2 adds 7 sequences.*global_batch_sequences=8"):
        make((100, 107), 8)


@pytest.mark.parametrize(
    ("batch", "ranks", "micro", "nearest"),
    [
        (25, 2, 0, "26"),
        (24, 5, 0, "25"),
        (24, 2, 5, "20"),
        (1, 4, 0, "4"),
        (26, 3, 0, "27"),
        (1000, 6, 80, "960"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_does(
    batch: int, ranks: int, micro: int, nearest: str
) -> None:
    with pytest.raises(RecipeError, match=f"={batch} does not divide by {ranks} ranks.*is {nearest},"):
        divide_batch(batch, ranks, micro)


def test_a_batch_that_divides_is_shared_evenly() -> None:
    assert divide_batch(960, 6, 80) == 160
    assert [largest_divisor(24, most) for most in (1, 5, 7, 100, 0)] == [1, 4, 6, 24, 1]
