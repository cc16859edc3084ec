import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tasks.evaluation.statistics import (
    Difference,
    group_difference,
    holm,
    mcnemar,
    paired_accuracy,
    paired_bits_per_byte,
    smallest_difference,
)


def bits(first: list[float], second: list[float], num_bytes: list[int], **options: int) -> Difference:
    generator = np.random.default_rng(options.pop("seed", 0))
    return paired_bits_per_byte(
        np.array(first), np.array(second), np.array(num_bytes), generator=generator, **options
    )


def items(both: int, first: int, second: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """So many items that both models have right, only the first, only the second, neither."""
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_accuracy_difference_by_hand() -> None:
    # Differences 1, 1, 0, 0, -1: mean .2, sample variance .7, standard error sqrt(.7 / 5). One gained and one
    # lost more, of 7: (3 - 2) / 7, variance 5 / 7 - 1 / 49 = 34 / 49. Of three coins two fall alike: p 1.
    found = paired_accuracy(np.array([0, 0, 1, 0, 1], bool), np.array([1, 1, 1, 0, 0], bool))
    assert (found.first, found.second, found.difference) == pytest.approx((0.4, 0.6, 0.2))
    assert found.stderr == pytest.approx(math.sqrt(0.14))
    reach = 1.959964 * math.sqrt(34 / 49 / 7)
    assert (found.low, found.high) == pytest.approx((1 / 7 - reach, 1 / 7 + reach))
    assert found.p == 1
    assert not found.separable


def test_accuracy_difference_of_a_textbook() -> None:
    # Approval of a prime minister, asked twice (Agresti, Categorical Data Analysis, 2nd ed., section 10.1):
    # 794, 150, 86, 570; difference -.04, error .0095, interval -.06 to -.02, McNemar's chi-squared 17.36.
    found = paired_accuracy(*items(794, 150, 86, 570))
    assert (found.difference, found.stderr) == pytest.approx((-0.04, 0.0095), abs=5e-5)
    assert (found.low, found.high) == pytest.approx((-0.06, -0.02), abs=0.002)
    assert found.p == pytest.approx(stats.chi2.sf(17.36, 1), rel=0.25)  # exact against large samples


def test_models_that_answer_alike_are_not_said_to_be_alike_for_certain() -> None:
    few, many = (paired_accuracy(*items(count, 0, 0, count)) for count in (10, 1000))
    assert few.difference == many.difference == 0
    assert few.high > 0.1 > many.high > 0
    assert few.p == 1


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_a_binomial_test_of_the_items_that_changed(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand_and_where_floats_would_end() -> None:
    assert mcnemar(5, 0) == 2 / 32
    assert mcnemar(1, 9) == 2 * 11 / 1024
    assert mcnemar(8000, 8000) == 1
    assert 0 < mcnemar(6000, 7000) < 1e-17


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    numbers = range(len(p_values))
    subsets = [set(s) for size in numbers for s in itertools.combinations(numbers, size + 1)]
    expected = [
        max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in subsets if number in s)
        for number in numbers
    ]
    assert holm(p_values) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    # .005 x 4, .01 x 3, .03 x 2, .04 x 1 but not below the .06 before; in the order given.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1, 1]


@pytest.mark.parametrize(
    ("num_items", "smallest"),
    [(14042, 0.92), (1172, 3.17), (2376, 2.23), (1267, 3.05), (10042, 1.08), (3270, 1.90), (1838, 2.53)],
)
def test_the_smallest_difference_of_the_usual_benchmarks(num_items: int, smallest: float) -> None:
    # (1.95996 + .84162) sqrt(.15 / n), in points: MMLU, ARC (both), WinoGrande, HellaSwag, BoolQ, PIQA.
    assert 100 * smallest_difference(num_items, 0.15) == pytest.approx(smallest, abs=0.005)


@pytest.mark.parametrize(("pairs", "discordance"), [(1267, 0.15), (400, 0.3), (1172, 0.06)])
def test_the_smallest_difference_is_found_in_four_of_five_runs(pairs: int, discordance: float) -> None:
    difference = smallest_difference(pairs, discordance)
    gains = np.arange(pairs + 1)
    power = 0.0
    for changed in range(1, pairs + 1):
        share = stats.binom.pmf(changed, pairs, discordance)
        if share > 1e-6:
            tail = stats.binom.cdf(gains[: changed + 1], changed, 0.5)
            p = 2 * np.minimum(tail, tail[::-1])
            power += (
                share
                * stats.binom.pmf(gains[: changed + 1], changed, (1 + difference / discordance) / 2)[
                    p < 0.05
                ].sum()
            )
    assert 0.74 <= power <= 0.82  # the exact test is a little careful, most where few items change


@given(st.integers(2, 20_000), st.floats(0, 1), st.floats(0, 1))
def test_more_items_show_smaller_differences(pairs: int, discordance: float, more: float) -> None:
    found = smallest_difference(pairs, discordance)
    assert 0 < found <= 1
    assert smallest_difference(2 * pairs, discordance) <= found
    assert smallest_difference(pairs, max(discordance, more)) >= found
    assert found <= max(discordance, 1.01 * 7.849 / pairs) or found == 1, "no larger than what may change"


def test_a_group_s_difference_by_hand() -> None:
    # .5 -> .6 and .2 -> .4: means .35 -> .5, relative .5 / .35 - 1. Half of two benchmarks' errors.
    benchmarks = [items(40, 10, 20, 30), items(30, 10, 50, 110)]
    found = group_difference(benchmarks, generator=np.random.default_rng(0))
    assert (found.first, found.second, found.difference) == pytest.approx((0.35, 0.5, 0.15))
    assert found.relative == pytest.approx(0.5 / 0.35 - 1)
    stderr = math.hypot(*(paired_accuracy(*one).stderr for one in benchmarks)) / 2
    assert found.stderr == pytest.approx(stderr, rel=0.03)
    assert (found.low, found.high) == pytest.approx((0.15 - 1.96 * stderr, 0.15 + 1.96 * stderr), abs=0.005)
    assert found.p < 0.001
    assert found.relative_low is not None
    assert found.relative_high is not None
    assert 0 < found.relative_low < 0.15 / 0.35 < found.relative_high


def test_a_group_s_interval_is_that_of_a_bootstrap_over_items() -> None:
    benchmarks = [items(40, 10, 12, 30), items(30, 9, 20, 110)]
    found = group_difference(benchmarks, generator=np.random.default_rng(1), resamples=20_000)
    generator = np.random.default_rng(2)
    ratios = []
    for _ in range(4000):
        drawn = [generator.integers(0, len(first), len(first)) for first, _ in benchmarks]
        before, after = (
            np.mean([one[side][at].mean() for one, at in zip(benchmarks, drawn, strict=True)])
            for side in (0, 1)
        )
        ratios.append(after / before - 1)
    assert (found.relative_low, found.relative_high) == pytest.approx(
        tuple(np.percentile(ratios, [2.5, 97.5])), abs=0.03
    )


def test_a_group_s_relative_change_needs_something_right_before() -> None:
    found = group_difference([items(0, 0, 5, 5)], generator=np.random.default_rng(0))
    assert (found.relative, found.relative_low, found.relative_high) == (None, None, None)
    with pytest.raises(ValueError, match="at least one"):
        group_difference([], generator=np.random.default_rng(0))


def test_few_documents_cannot_be_sure() -> None:
    found = bits([100.0, 200.0, 300.0], [90.0, 170.0, 280.0], [100, 200, 300])
    assert found.separable, "the bootstrap alone is"
    assert found.p == 0.25, "three coins fall alike that often"


@given(
    st.lists(st.tuples(st.floats(50, 500), st.floats(-20, 20), st.integers(1, 99)), min_size=2, max_size=12)
)
def test_a_small_p_never_stands_beside_an_interval_with_zero(rows: list[tuple[float, float, int]]) -> None:
    first, change, size = (list(column) for column in zip(*rows, strict=True))
    after = [a + b for a, b in zip(first, change, strict=True)]
    found = bits(first, after, size, resamples=200)
    assert found.separable or found.p >= 0.05
    back = bits(after, first, size, resamples=200)
    assert (back.p, back.low, back.high) == pytest.approx((found.p, -found.high, -found.low))


def test_the_bootstrap_agrees_with_scipy_s() -> None:
    generator = np.random.default_rng(9)
    size = generator.integers(200, 5000, 150)
    first = size * generator.normal(1, 0.2, 150)
    second = first + size * generator.normal(0.01, 0.05, 150)
    found = paired_bits_per_byte(first, second, size, generator=generator)

    def change(a: NDArray[np.float64], b: NDArray[np.float64], n: NDArray[np.int64], axis: int) -> object:
        return (b.sum(axis) - a.sum(axis)) / n.sum(axis) / math.log(2)

    theirs = stats.bootstrap(
        (first, second, size), change, paired=True, method="percentile", n_resamples=10_000, rng=generator
    )
    assert found.stderr == pytest.approx(theirs.standard_error, rel=0.05)
    interval = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=0.1 * found.stderr)
    one_sided = min(np.mean(theirs.bootstrap_distribution <= 0), np.mean(theirs.bootstrap_distribution >= 0))
    assert found.p == pytest.approx(2 * one_sided, abs=0.01)


def _alike_items(generator: np.random.Generator) -> float:
    first = generator.random(300) < 0.4
    changed = generator.random(300) < 0.15
    return paired_accuracy(first, np.where(changed, generator.random(300) < 0.5, first)).p


def _alike_documents(generator: np.random.Generator) -> float:
    size = generator.integers(200, 5000, 60)
    first = size * generator.normal(1, 0.2, 60)
    second = first + size * generator.normal(0, 0.05, 60)
    return paired_bits_per_byte(first, second, size, generator=generator, resamples=200).p


def _alike_groups(generator: np.random.Generator) -> float:
    counts = [generator.multinomial(500, [0.3, 0.08, 0.08, 0.54]) for _ in range(3)]
    return group_difference([items(*map(int, c)) for c in counts], generator=generator, resamples=1000).p


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compare", "most"), [(_alike_items, 0.05), (_alike_documents, 0.085), (_alike_groups, 0.07)]
)
def test_models_that_are_alike_are_told_apart_no_oftener_than_said(
    compare: Callable[[np.random.Generator], float], most: float
) -> None:
    # Of 1,000 runs at .05 three sigma are 21. McNemar's exact test is careful; a percentile bootstrap of 60
    # documents runs a little short, of 1,000 it does not.
    generator = np.random.default_rng(23)
    found = [compare(generator) for _ in range(1000)]
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= most


@pytest.mark.slow
def test_a_suite_of_models_that_are_alike_gives_a_finding_in_one_of_twenty_runs() -> None:
    generator = np.random.default_rng(29)
    plain = corrected = 0
    for _ in range(400):
        p_values = [_alike_items(generator) for _ in range(8)]
        plain += min(p_values) < 0.05
        corrected += min(holm(p_values)) < 0.05
    assert plain > 60, "uncorrected it would be one of five"
    assert corrected <= 33  # 5 % of 400 and three sigma


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
