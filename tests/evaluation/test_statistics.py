import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.statistics import Difference, paired_accuracy, paired_bits_per_byte


def bits(first: list[float], second: list[float], num_bytes: list[int], **options: int) -> Difference:
    generator = np.random.default_rng(options.pop("seed", 0))
    return paired_bits_per_byte(
        np.array(first), np.array(second), np.array(num_bytes), generator=generator, **options
    )


def test_accuracy_difference_by_hand() -> None:
    # Differences 1, 1, 0, 0, -1: mean .2, sample variance .7, standard error sqrt(.7 / 5).
    found = paired_accuracy(np.array([0, 0, 1, 0, 1], bool), np.array([1, 1, 1, 0, 0], bool))
    assert (found.first, found.second, found.difference) == pytest.approx((0.4, 0.6, 0.2))
    assert found.stderr == pytest.approx(math.sqrt(0.14))
    assert (found.low, found.high) == pytest.approx((0.2 - 1.96 * 0.374166, 0.2 + 1.96 * 0.374166), abs=1e-4)
    assert not found.separable


def test_bits_per_byte_difference_by_hand() -> None:
    # 2 and 1 bits a byte on documents of 10 and 30 bytes, whatever is drawn.
    found = bits([20 * math.log(2), 60 * math.log(2)], [10 * math.log(2), 30 * math.log(2)], [10, 30])
    assert (found.first, found.second, found.difference) == pytest.approx((2, 1, -1))
    assert (found.low, found.high) == pytest.approx((-1, -1))
    assert found.separable


def test_a_document_counts_by_its_length() -> None:
    found = bits([100.0, 1.0], [100.0, 2.0], [1000, 1])
    assert found.difference == pytest.approx(1 / math.log(2) / 1001)


def test_the_same_seed_gives_the_same_interval() -> None:
    nats = np.random.default_rng(1).gamma(2, 100, (2, 50))
    size = [100] * 50
    assert bits(list(nats[0]), list(nats[1]), size, seed=7) == bits(
        list(nats[0]), list(nats[1]), size, seed=7
    )
    assert bits(list(nats[0]), list(nats[1]), size, seed=7) != bits(
        list(nats[0]), list(nats[1]), size, seed=8
    )


def test_the_bootstrap_agrees_with_the_normal_interval_on_equal_documents() -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(100, 30, 400)
    change = generator.normal(1, 5, 400)
    found = bits(list(first), list(first + change), [100] * 400)
    stderr = change.std(ddof=1) / math.sqrt(400) / 100 / math.log(2)
    assert found.stderr == pytest.approx(stderr, rel=0.08)  # 2,000 draws: 1.6 % one sigma, five of them
    assert found.high - found.low == pytest.approx(2 * 1.96 * stderr, rel=0.1)


@pytest.mark.slow
def test_the_interval_covers_no_change_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    missed = 0
    for _ in range(200):
        size = generator.integers(200, 5000, 80)
        first = size * generator.normal(1, 0.2, 80)
        second = first + size * generator.normal(0, 0.05, 80)
        missed += paired_bits_per_byte(first, second, size, generator=generator, resamples=300).separable
    assert missed <= 24  # 5 % of 200 is 10; the percentile bootstrap of 80 documents runs a little short


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_accuracy_difference_is_antisymmetric_and_inside_its_interval(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    there, back = paired_accuracy(first, second), paired_accuracy(second, first)
    assert there.difference == -back.difference
    assert there.low <= there.difference <= there.high
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@pytest.mark.parametrize(
    ("sizes", "told"),
    [((2, 3, 3), "found 2 and 3 and 3 values"), ((1, 1, 1), "at least 2"), ((0, 0, 0), "at least 2")],
)
def test_what_cannot_be_compared_is_refused(sizes: tuple[int, int, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        bits([1.0] * sizes[0], [1.0] * sizes[1], [1] * sizes[2])
    with pytest.raises(ValueError, match="no bytes"):
        bits([0.0, 0.0], [0.0, 0.0], [0, 0])
