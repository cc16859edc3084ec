from itertools import pairwise

import pytest

from tasks.training.schedule import learning_rate_fraction, warmup_steps


def fractions(steps: int, warmup: float, least: float) -> list[float]:
    return [
        learning_rate_fraction(step, steps=steps, warmup_fraction=warmup, min_lr_fraction=least)
        for step in range(steps)
    ]


def test_warm_up_starts_above_zero_and_ends_at_the_peak() -> None:
    assert fractions(40, 0.1, 0.1)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_falls_through_its_middle_towards_the_least() -> None:
    found = fractions(100, 0.0, 0.2)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.6)  # halfway between 1 and 0.2
    assert found[-1] == pytest.approx(0.2, abs=1e-3)
    assert all(a > b for a, b in pairwise(found))


def test_one_step_and_a_warm_up_of_nearly_all_steps_are_possible() -> None:
    assert fractions(1, 0.1, 0.1) == [1.0]
    assert warmup_steps(3, 0.99) == 3
    assert fractions(3, 0.99, 0.1) == pytest.approx([1 / 3, 2 / 3, 1.0])


@pytest.mark.train
@pytest.mark.parametrize(("steps", "warmup", "least"), [(20, 0.1, 0.1), (100, 0.25, 0.0), (37, 0.0, 0.5)])
def test_the_schedule_is_that_of_transformers(steps: int, warmup: float, least: float) -> None:
    import torch
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warm = warmup_steps(steps, warmup)
    theirs = get_cosine_with_min_lr_schedule_with_warmup(optimizer, warm, steps, min_lr_rate=least)
    expected = []
    for _ in range(steps + 1):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert fractions(steps, warmup, least) == pytest.approx(expected[1 : warm + 1] + expected[warm:steps])
