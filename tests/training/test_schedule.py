"""Learning rates: the published formulas, no jumps, and a history that no larger milestone rewrites."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.config import TrainingConfig
from tasks.training.schedule import Schedule

KINDS = ("cosine", "wsd", "infinite")


def schedule(steps: int | tuple[int, ...], **fields: Any) -> Schedule:
    """Of so many steps, of one sequence each."""
    config = TrainingConfig(base_model="a", global_batch_sequences=1, **fields)
    return Schedule.of(config, (steps,) if isinstance(steps, int) else steps)


def fractions(made: Schedule) -> list[float]:
    return [made.fraction(step) for step in range(made.origin, made.end)]


def cosine(steps: int, warmup: float, least: float) -> list[float]:
    return fractions(schedule(steps, warmup_fraction=warmup, min_lr_fraction=least))


def test_warm_up_starts_above_zero_and_ends_at_the_peak() -> None:
    for kind in KINDS:
        found = fractions(schedule(40, schedule=kind))
        assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_falls_through_its_middle_towards_the_least() -> None:
    found = cosine(100, 0.0, 0.2)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.6)  # halfway between 1 and 0.2
    assert found[-1] == pytest.approx(0.2, abs=1e-3)
    assert all(a > b for a, b in pairwise(found))


def test_wsd_is_constant_until_it_is_annealed_by_a_square_root() -> None:
    found = fractions(schedule(100, schedule="wsd", anneal_fraction=0.16, min_lr_fraction=0.0))
    assert found[9:85] == [1.0] * 76
    assert found[84:] == pytest.approx([1 - (number / 16) ** 0.5 for number in range(16)])


def test_infinite_cools_down_to_a_constant_and_is_annealed_to_the_least() -> None:
    made = schedule(100, schedule="infinite", cooldown_fraction=0.2, min_lr_fraction=0.1)
    found = fractions(made)
    assert found[20] == pytest.approx((1 + 0.55) / 2)  # halfway through the cool-down
    assert found[30:91] == pytest.approx([0.55] * 61)
    assert found[95] == pytest.approx((0.55 * 0.1) ** 0.5)  # halfway through annealing, in logarithms
    assert found[-1] == pytest.approx(0.1, rel=0.2)


def test_one_step_and_a_warm_up_of_nearly_all_steps_are_possible() -> None:
    assert cosine(1, 0.1, 0.1) == [1.0]
    assert cosine(3, 0.99, 0.1) == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert fractions(schedule(1, schedule="wsd")) == [1.0]
    assert fractions(schedule(1, schedule="infinite")) == [0.55]  # all of it is annealed


@given(
    kind=st.sampled_from(KINDS),
    milestones=st.lists(st.integers(1, 400), min_size=1, max_size=4, unique=True).map(sorted).map(tuple),
    warmup=st.floats(0, 0.4),
    cooled=st.floats(0, 0.3),
    annealed=st.floats(0.01, 0.3),
    least=st.floats(0.01, 1),
    extends=st.booleans(),
)
def test_rates_never_jump_and_end_near_the_least(
    kind: str,
    milestones: tuple[int, ...],
    warmup: float,
    cooled: float,
    annealed: float,
    least: float,
    extends: bool,
) -> None:
    fields = {
        "schedule": kind,
        "warmup_fraction": warmup,
        "cooldown_fraction": cooled,
        "anneal_fraction": annealed,
        "min_lr_fraction": least,
        "continuation": "extend" if extends else "restart",
    }
    made = schedule(milestones, **fields)
    found = fractions(made)
    assert made.begin <= made.leave <= made.end == milestones[-1]
    assert (made.begin > 0) <= (extends and len(milestones) > 1)
    assert all(min(least, 1 / max(1, made.warmup)) <= rate * (1 + 1e-9) and rate <= 1 for rate in found)
    for a, b in pairwise(found):
        assert b - a <= 1 / max(1, made.warmup) + 1e-9  # up: by the warm-up's steps at most
        assert b >= a or b >= least
    steps = made.end - made.origin
    if steps > 1 and steps - made.warmup >= 1:
        assert found[-1] <= 1


@pytest.mark.parametrize("kind", ["wsd", "infinite"])
def test_a_larger_milestone_goes_on_as_if_the_smaller_had_not_been_annealed(kind: str) -> None:
    fields = {"schedule": kind, "continuation": "extend"}
    small, large = schedule(100, **fields), schedule((100, 250), **fields)
    assert (small.leave, large.begin, large.leave) == (90, 90, 225)
    assert fractions(large)[:90] == fractions(small)[:90]
    assert large.fraction(90) == pytest.approx(large.fraction(89), abs=1e-9)
    assert large.fraction(224) == large.fraction(225)
    assert schedule((100, 250, 300), **fields).begin == 225


def test_an_extended_cosine_warms_up_again_over_what_is_new() -> None:
    made = schedule((100, 200), continuation="extend")
    assert (made.begin, made.origin, made.leave) == (100, 100, 200)
    assert fractions(made) == fractions(schedule(100))


def test_what_is_measured_on_the_way_is_at_fractions_of_what_is_trained_rounded_up() -> None:
    made = schedule(30)
    assert made.measured((0, 0.01, 0.02, 0.1, 0.5, 0.99, 1)) == [0, 1, 3, 15, 30]
    assert made.kept((0, 0.01, 0.02, 0.1, 0.5, 0.99, 1)) == [1, 3, 15], "neither the base nor the end"
    assert schedule(700).measured((0, 0.07, 0.29, 1)) == [0, 49, 203, 700], "0.07 * 700 is a little above 49"
    assert (made.measured(()), made.kept(())) == ([], [])


def test_a_milestone_that_extends_another_keeps_what_it_begins_with() -> None:
    made = schedule((30, 50), continuation="extend", schedule="wsd", anneal_fraction=0.1)
    assert (made.begin, made.end) == (27, 50)
    assert made.kept((0, 0.5, 1)) == [27, 39]


@given(
    st.integers(1, 500),
    st.lists(st.integers(1, 99), unique=True).map(
        lambda parts: [0.0, *(p / 100 for p in sorted(parts)), 1.0]
    ),
)
def test_measured_steps_grow_from_the_first_to_the_last(steps: int, at: list[float]) -> None:
    measured = schedule(steps).measured(at)
    assert (measured[0], measured[-1]) == (0, steps)
    assert all(a < b for a, b in pairwise(measured))
    assert set(measured) == {-(-round(100 * fraction) * steps // 100) for fraction in at}


@pytest.mark.train
@pytest.mark.parametrize(("steps", "warmup", "least"), [(20, 0.1, 0.1), (100, 0.25, 0.0), (37, 0.0, 0.5)])
def test_the_schedule_is_that_of_transformers(steps: int, warmup: float, least: float) -> None:
    import torch
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warm = schedule(steps, warmup_fraction=warmup).warmup
    theirs = get_cosine_with_min_lr_schedule_with_warmup(optimizer, warm, steps, min_lr_rate=least)
    expected = []
    for _ in range(steps + 1):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert cosine(steps, warmup, least) == pytest.approx(expected[1 : warm + 1] + expected[warm:steps])
