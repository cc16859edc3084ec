"""What a score must not hide: the cases are those of a published table of a 125M model at the real sizes."""

import math

import pytest

from tasks.report.flags import Standing, against_chance, against_majority, flags_of, says_little
from tasks.report.scored import BenchmarkScore


def score(value: float, items: int, chance: float, **more: float) -> BenchmarkScore:
    error = math.sqrt(value * (1 - value) / items)
    return BenchmarkScore(score=value, stderr=error, items=items, chance=chance, **more)


@pytest.mark.parametrize(
    ("value", "items", "chance", "standing"),
    [
        (0.2304, 14042, 0.25, "below"),
        (0.2490, 14042, 0.25, "at"),
        (0.3820, 10042, 0.25, "above"),
        (0.2432, 1172, 0.25, "at"),
        (0.5240, 1267, 0.5, "at"),
        (0.6512, 1838, 0.5, "above"),
    ],
)
def test_a_score_stands_above_at_or_below_chance(
    value: float, items: int, chance: float, standing: Standing
) -> None:
    assert against_chance(score(value, items, chance)) == standing
    assert says_little(score(value, items, chance)) == (standing != "above")


def test_the_error_of_guessing_decides_about_chance_not_the_model_s_own() -> None:
    # Five items, none right: the model's own error is 0, a guess among four does so in one of four runs.
    assert against_chance(BenchmarkScore(score=0.0, stderr=0.0, items=5, chance=0.25)) == "at"
    assert against_chance(BenchmarkScore(score=0.3, stderr=0.02, chance=0.25)) == "above"
    assert against_chance(BenchmarkScore(score=0.3, stderr=0.02)) is None


@pytest.mark.parametrize(("value", "standing"), [(0.6034, "below"), (0.6300, "at"), (0.6500, "above")])
def test_a_score_stands_to_always_the_same_answer(value: float, standing: Standing) -> None:
    boolq = score(value, 3270, 0.5, majority=0.6217)
    assert against_majority(boolq) == standing
    assert says_little(boolq) == (standing != "above")
    told = [f"{standing} majority class (always the same answer: 0.6217)"] if standing != "above" else []
    assert flags_of(boolq) == told


def test_one_answer_to_nearly_everything_is_told() -> None:
    mmlu = score(0.2304, 14042, 0.25, majority=0.2689, most_chosen=0.9912)
    assert flags_of(mmlu) == [
        "below chance",
        "below majority class (always the same answer: 0.2689)",
        "99% of answers are the same choice",
    ]
    assert flags_of(score(0.382, 10042, 0.25, majority=0.2507, most_chosen=0.27)) == []


def test_at_chance_says_it_all_where_the_majority_class_is_no_better() -> None:
    assert flags_of(score(0.51, 1267, 0.5, majority=0.504, most_chosen=0.55)) == ["at chance"]
