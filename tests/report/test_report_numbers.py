"""Numbers as the report writes them."""

import pytest

from tasks.report.numbers import (
    bytes_text,
    count_text,
    decimal_text,
    duration_text,
    percent_text,
    short_text,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (count_text(1_234_567), "1,234,567"),
        (count_text(None), "\N{EN DASH}"),
        (decimal_text(-0.9131, 3), "\N{MINUS SIGN}0.913"),
        (decimal_text(0.139, 3, sign=True), "+0.139"),
        (decimal_text(-0.0001, 3), "0.000"),
        (decimal_text(-0.0001, 3, sign=True), "0.000"),
        (decimal_text(1234.5, 1), "1,234.5"),
        (short_text(7758.2), "7.76k"),
        (short_text(999.7), "1.00k"),
        (short_text(0.517), "0.517"),
        (short_text(99.97), "100"),
        (bytes_text(178_000_000), "178 MB"),
        (bytes_text(512), "512 B"),
        (bytes_text(999_999_999), "1.00 GB"),
        (duration_text(0.42), "0.42 s"),
        (duration_text(9.999), "10.0 s"),
        (duration_text(59.96), "1 min 00 s"),
        (duration_text(3599.7), "1 h 00 min"),
        (duration_text(7440), "2 h 04 min"),
        (percent_text(0.1234), "12.3%"),
        (percent_text(0.0002), "< 0.1%"),
        (percent_text(0), "0.0%"),
    ],
)
def test_a_number_is_written_as_people_read_it(written: str, expected: str) -> None:
    assert written == expected
