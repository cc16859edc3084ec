"""What was fetched lies in a spool that forgets what is damaged; and how long a host asks to wait."""

from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.download import transfer
from tasks.download.spool import Span, Spool, joined, missing

pytestmark = pytest.mark.slow


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_spans_are_as_sets_of_bytes(given: list[Span], asked: Span) -> None:
    have = joined(given)
    bytes_had = {byte for start, end in given for byte in range(start, end)}
    assert {byte for start, end in have for byte in range(start, end)} == bytes_had
    assert all(left[1] < right[0] for left, right in pairwise(have))
    gaps = missing(have, *asked)
    assert sorted(byte for start, end in gaps for byte in range(start, end)) == sorted(
        set(range(*asked)) - bytes_had
    )
    assert gaps == joined(gaps)


def test_a_spool_has_what_it_was_given_after_any_death_and_damage(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "digest", 100)
    spool.take(10, b"a" * 10)
    spool.take(50, b"b" * 10)
    spool.close()
    with next(tmp_path.glob("*.have")).open("a") as journal:
        journal.write("70 80 12345\n60 6")  # bytes that never reached the disk; a line cut off
    with next(tmp_path.glob("*.bytes")).open("r+b") as data:
        data.seek(15)
        data.write(b"x")
    again = Spool(tmp_path, "digest", 100)
    assert again.missing(0, 100) == [(0, 50), (60, 100)]
    assert again.read(50, 60) == b"b" * 10
    again.close()
    other = Spool(tmp_path, "another digest", 100)
    assert other.missing(0, 100) == [(0, 100)]
    other.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "7000"}, transfer.MOST_WAIT_S),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"ratelimit": '"resolvers";r=0;t=55'}, 55),
        ({"ratelimit": '"resolvers";r=4;t=55'}, 0),
        ({}, 0),
    ],
)
def test_how_long_a_host_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert transfer._asked_wait(httpx2.Headers(headers)) == seconds
