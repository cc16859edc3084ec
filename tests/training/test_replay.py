"""General rows among the domain's: how many, where, and what a larger budget leaves as it was."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.store.node import Node
from tasks.training.config import TrainingConfig, config_of, how_of, node
from tasks.training.order import SequenceOrder
from tasks.training.replay import Replay
from tasks.training.schedule import Schedule
from tests.training.test_training_config import BASE, CORPORA, TOKENIZER

SHARES = st.one_of(
    st.sampled_from([0.01, 0.05, 0.1, 0.123, 0.25]),
    st.floats(0.01, 0.25, allow_nan=False),
)


def plainly(share: float, total: int) -> list[bool]:
    """Which positions are replayed, by the sum of their shares: wherever it passes a whole number."""
    fraction, owed, found = Fraction(str(share)), Fraction(0), []
    for _ in range(total):
        owed += fraction
        found.append(owed >= 1)
        owed -= found[-1]
    return found


@settings(max_examples=60, deadline=None)
@given(share=SHARES, domain=st.integers(0, 600), cut=st.data())
def test_counts_and_positions_are_those_of_shares_summed_up(
    share: float, domain: int, cut: st.DataObject
) -> None:
    replay = Replay(share, 10)
    total = replay.total(domain)
    marked = plainly(share, total + 1)
    assert total - sum(marked[:total]) == domain
    assert total + 1 - sum(marked) > domain, "one more would be of the domain"
    assert replay.needed(domain) == sum(marked[:total])
    start = cut.draw(st.integers(0, total))
    assert replay.positions(start, total) == [i for i in range(start, total) if marked[i]]
    assert replay.before(start) == sum(marked[:start])


def test_a_share_is_the_decimal_that_was_written() -> None:
    # as a binary fraction .1 is more than a tenth, and .01 more than a hundredth
    assert Replay(0.1).total(9 * 10**15) == 10**16
    assert Replay(0.01).positions(10**16 - 1, 10**16) == [10**16 - 1]


def seen(order: SequenceOrder) -> list[int]:
    """Rows in order: of the general corpus as -1 - row, so that they are called the same at every budget."""
    rows = np.concatenate([order.batch_rows(step) for step in range(order.num_steps)])
    domain = order.borders[-1]
    return np.where(rows < domain, rows, domain - 1 - rows).tolist()


def make(
    borders: tuple[int, ...], share: float, general: int, *, batch: int = 1, window: int = 30, epochs: int = 1
) -> SequenceOrder:
    """An order whose general sources hold so many rows."""
    needed = Replay(share).needed(epochs * borders[-1])
    replay = Replay(share, min(general, needed))
    return SequenceOrder(
        seed=3, borders=borders, global_batch=batch, window=window, epochs=epochs, replay=replay
    )


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(5, 300), min_size=1, max_size=3),
    share=SHARES,
    general=st.integers(1, 60),
    window=st.integers(1, 100),
    epochs=st.integers(1, 2),
)
def test_every_beginning_holds_its_share_and_rows_come_back_once_all_were_seen(
    sizes: list[int], share: float, general: int, window: int, epochs: int
) -> None:
    borders = tuple(int(end) for end in np.cumsum(sizes))
    order = make(borders, share, general, window=window, epochs=epochs)
    rows = np.array(seen(order))
    counted, exact = np.cumsum(rows < 0), np.arange(1, len(rows) + 1) * float(share)
    assert np.all(np.abs(counted - exact) < 1 + 1e-9)

    plain = SequenceOrder(seed=3, borders=borders, global_batch=1, window=window, epochs=epochs)
    assert rows[rows >= 0].tolist() == seen(plain), "the domain's order is as without replay"

    replayed = -1 - rows[rows < 0]
    held = order.replay.rows
    assert len(replayed) == order.replay.needed(epochs * borders[-1])
    for start in range(0, len(replayed), max(1, held)):
        of_pass = replayed[start : start + held]
        assert len(set(of_pass.tolist())) == len(of_pass)
        assert max(of_pass) < held
    assert order.replay.passes(len(replayed)) == (max(np.bincount(replayed)) if len(replayed) else 0)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(12, 300), min_size=2, max_size=4),
    share=SHARES,
    general=st.integers(1, 80),
    batch=st.integers(1, 12),
)
def test_a_larger_budget_begins_with_what_the_smaller_one_saw(
    sizes: list[int], share: float, general: int, batch: int
) -> None:
    borders = tuple(int(end) for end in np.cumsum(sizes))
    orders = [make(borders[: n + 1], share, general, batch=batch) for n in range(len(borders))]
    for small, large in pairwise(orders):
        assert seen(large)[: small.num_steps * batch] == seen(small)


def test_a_step_is_the_same_for_any_division_among_ranks() -> None:
    order = make((100, 250), 0.1, 20, batch=12)
    steps = [order.batch_rows(step).tolist() for step in range(order.num_steps)]
    assert [row for step in steps for row in step] == np.concatenate(
        [make((100, 250), 0.1, 20, batch=4).batch_rows(step) for step in range(3 * len(steps))]
    ).tolist()


def test_replayed_rows_stand_in_another_order_than_the_domain_s() -> None:
    order = make((900,), 0.1, 100, window=1000)
    rows = np.array(seen(order))
    replayed = (-1 - rows[rows < 0]).tolist()
    assert sorted(replayed) == list(range(100)) != replayed
    assert replayed != [row for row in rows.tolist() if 0 <= row < 100]


def test_steps_left_out_and_the_schedule_count_what_is_replayed() -> None:
    order = make((100, 250), 0.1, 20, batch=12)
    assert (order.num_sequences, order.num_steps, order.left_out) == (277, 23, 1)
    for continuation in ("restart", "extend"):
        config = TrainingConfig(base_model="a", global_batch_sequences=12, continuation=continuation)
        schedule = Schedule.of(config, order.borders, order.replay)
        assert (schedule.begin, schedule.end) == (9 if continuation == "extend" else 0, 23)


GENERAL = [Node(stage="corpus", version=1, config={"sequences": n}, inputs={}) for n in (11, 22)]


def test_share_and_general_corpora_are_identity_and_their_absence_is_none() -> None:
    config = TrainingConfig(base_model="tiny", learning_rate=2e-4)

    def made(share: float, general: list[Node]) -> Node:
        given = {"seed": 1, "base": BASE, "tokenizer": TOKENIZER, "corpora": CORPORA}
        return node(config, **given, replay_fraction=share, replayed=general)

    plain = made(0.0, [])
    assert not {"replay_fraction", "replayed"} & {*plain.config, *plain.inputs, *plain.reads}
    found = [plain, made(0.1, GENERAL), made(0.2, GENERAL), made(0.1, [GENERAL[1], GENERAL[1]])]
    assert len({one.fingerprint for one in found}) == 4
    assert config_of(found[1], how_of(config, 1)) == config_of(plain, how_of(config, 1))
    with pytest.raises(AssertionError):
        made(0.1, GENERAL[:1])
