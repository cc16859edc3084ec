"""Amounts: what people write is read exactly, what is none is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tasks.store.tokens import Tokens, format_tokens, parse_bytes, parse_tokens


@given(st.integers(min_value=1, max_value=10**15))
def test_tokens_survive_the_round_trip(count: int) -> None:
    assert parse_tokens(format_tokens(count)) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("400M", 400_000_000),
        ("1.5B", 1_500_000_000),
        ("1g", 10**9),
        (" 2 k ", 2000),
        ("1_000_000", 10**6),
        (17, 17),
        ("0.001K", 1),
    ],
)
def test_tokens_are_read_as_people_write_them(text: object, count: int) -> None:
    assert parse_tokens(text) == count


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (400_000_000, "400M"),
        (1_500_000_000, "1.5B"),
        (10**9, "1B"),
        (1_234_567, "1234567"),
        (12_345_671, "12345671"),
        (999, "999"),
    ],
)
def test_tokens_are_written_short_and_exact(count: int, text: str) -> None:
    assert format_tokens(count) == text


@pytest.mark.parametrize(
    "text", ["", "M", "-1M", "0", 0, "1.5", "0.0001K", "10X", "4 00M", 1.5, True, None, "64MB", "1e6"]
)
def test_what_is_no_number_of_tokens_is_named(text: object) -> None:
    with pytest.raises(ValueError, match="amount") as told:
        parse_tokens(text)
    assert repr(text) in str(told.value)
    assert "400M" in str(told.value)


@pytest.mark.parametrize(
    ("text", "count"), [("64MB", 64_000_000), ("1.5gb", 1_500_000_000), ("10B", 10), (5, 5), ("7", 7)]
)
def test_sizes_are_read_in_decimal_units(text: object, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["64M", "-1MB", "0GB", "1.5B", False])
def test_what_is_no_size_is_named(text: object) -> None:
    with pytest.raises(ValueError, match="64MB") as told:
        parse_bytes(text)
    assert repr(text) in str(told.value)


def test_a_model_field_reads_amounts_and_names_itself() -> None:
    class Budget(BaseModel):
        tokens: Tokens

    assert Budget.model_validate({"tokens": "1M"}).tokens == 10**6
    with pytest.raises(ValidationError, match="tokens\n"):
        Budget.model_validate({"tokens": "much"})
