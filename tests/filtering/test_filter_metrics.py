"""Every metric of the filter equals its plain version, on made and on real text."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.filtering.length import measure_length
from tasks.filtering.quality import measure_quality
from tasks.filtering.repetition import measure_repetition
from tasks.text.columns import text_buffers
from tests.oracles.quality import length, quality
from tests.oracles.repetition import repetition

# Few different pieces, so that words, lines and paragraphs repeat; every kind of break, space and width.
PIECES = [
    "a", "b", "the", "The", "of", "ab", "na\u00efve", "e\u0301", "\u5149\u5408", "\U0001f600",
    "--", "...", "\u2026", ".", "(", "\u201d", "#", "\u3002",
    "-", "\u2022", " ", " ", " ", "  ", "\t", "\u00a0", "\u3000", "\x1c", "\x85",
    "\u2028", "\n", "\n", "\n\n", "\n \n", "\r\n", "\r\n\r\n", "\r", "\ufeff", "\x00", "\u200b",
    "a line that is rather long, and the same again",
]  # fmt: skip
texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=120).map("".join),
    st.text("ab \n.", max_size=200),
    st.lists(st.permutations(["x y", "z", "w"]).map("\n".join), max_size=9).map("\n\n".join),
)


def as_bytes(documents: list[str]) -> pa.Array:
    """A column of texts as they are: Arrow itself makes none of a lone surrogate."""
    return pa.array([text.encode("utf-8", "surrogatepass") for text in documents], pa.binary()).view(
        pa.string()
    )


def assert_equals_the_plain_version(documents: list[str]) -> None:
    offsets, data = text_buffers(as_bytes(documents))
    np.testing.assert_array_equal(measure_repetition(offsets, data), [repetition(text) for text in documents])
    num_lines, short = measure_length(offsets, data, 30)
    assert list(zip(num_lines.tolist(), short.tolist(), strict=True)) == [
        length(text, 30) for text in documents
    ]
    np.testing.assert_array_equal(measure_quality(offsets, data), [quality(text) for text in documents])


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=8))
def test_metrics_equal_the_plain_version_on_any_text(documents: list[str]) -> None:
    assert_equals_the_plain_version(documents)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(codec=None), max_size=80), min_size=1, max_size=5))
def test_metrics_equal_the_plain_version_on_lone_surrogates_too(documents: list[str]) -> None:
    assert_equals_the_plain_version([text + " \ud800 " + text + "\udfff\n" + text for text in documents])


@pytest.mark.slow
def test_metrics_equal_the_plain_version_on_a_line_of_ten_megabytes() -> None:
    """Of few and long words, so that the plain version ends."""
    generator = np.random.default_rng(0)
    words = ["".join(map(chr, row)) for row in generator.integers(0x61, 0x7B, (40, 1000))]
    words += ["".join(map(chr, row)) for row in generator.integers(0x4E00, 0x9FA5, (20, 300))]
    chosen = [words[i] for i in generator.integers(0, len(words), 11_000)]
    assert_equals_the_plain_version([" ".join(chosen)])


def test_a_null_is_measured_as_a_document_without_text() -> None:
    column = pa.array([None, "a b\na b", None], pa.large_string())
    metrics = measure_repetition(*text_buffers(column))
    np.testing.assert_array_equal(metrics, [[0.0] * 13, repetition("a b\na b"), [0.0] * 13])


def test_metrics_of_no_text_are_zero() -> None:
    offsets, data = text_buffers(pa.array(["", " \n\u00a0\r\n "]))
    assert not measure_repetition(offsets, data).any()
    assert not measure_quality(offsets, data).any()
    assert not measure_length(offsets, data, 30)[0].any()


def test_a_slice_is_measured_like_its_documents_alone() -> None:
    column = pa.array(["x", "same line\nsame line", "\u5149 \u5149 \u5149", "z"])
    offsets, data = text_buffers(column.slice(1, 2))
    np.testing.assert_array_equal(
        measure_repetition(offsets, data), [repetition(text) for text in column.slice(1, 2).to_pylist()]
    )


@pytest.mark.parametrize(
    "text",
    [
        "word " * 400_000,
        "a " * 1_000_000,
        "x" * 2_000_000,
        ". , " * 500_000,
        "\n" * 2_000_000,
        "a\n" * 700_000,
    ],
)
def test_a_large_document_takes_linear_time(text: str) -> None:
    """A quadratic step would take hours; the limit is the runner's, not a clock's."""
    offsets, data = text_buffers(pa.array([text]))
    assert measure_repetition(offsets, data).shape == (1, 13)
    assert measure_length(offsets, data, 30)[0].shape == (1,)


@pytest.mark.parametrize("folder", ["edu", "general", "near_duplicates"])
@pytest.mark.slow
def test_metrics_equal_the_plain_version_on_real_text(folder: str, data_folder: Path) -> None:
    files = sorted((data_folder / folder).glob("*.parquet"))
    documents = [text for file in files for text in pq.read_table(file)["text"].to_pylist()[::150]]
    assert_equals_the_plain_version([text for text in documents if len(text) < 20_000])


def test_metrics_equal_the_plain_version_on_hard_cases(data_folder: Path) -> None:
    documents = (
        pq.read_table(data_folder / "hard_cases.parquet", columns=["text"])["text"].drop_null().to_pylist()
    )
    assert_equals_the_plain_version([text for text in documents if len(text) < 20_000])
