"""The stability gap of a row of values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.stability import Gap, stability_gap

VALUES = st.lists(st.integers(-50, 50).map(lambda value: value / 8), min_size=2, max_size=12)


def test_a_dip_its_depth_and_what_was_regained() -> None:
    assert stability_gap([2.0, 2.5, 3.0, 2.25]) == Gap(2, 1.0, 0.75)
    assert stability_gap([2.0, 3.0, 1.5]) == Gap(1, 1.0, 1.5), "better than at the start"
    assert stability_gap([2.0, 2.5, 3.0]) == Gap(2, 1.0, 0.0), "nothing was regained"
    assert stability_gap([2.0, 2.0, 1.0]) == Gap(None, 0.0, None)


@given(VALUES)
def test_nothing_is_worse_than_the_dip_and_the_end_is_where_it_says(values: list[float]) -> None:
    gap = stability_gap(values)
    if gap.dip is None:
        assert max(values) == values[0]
        return
    assert gap.recovery is not None
    assert values[gap.dip] == max(values)
    assert values.index(max(values)) == gap.dip, "the earliest"
    assert values[gap.dip] - gap.recovery * gap.depth == pytest.approx(values[-1])
