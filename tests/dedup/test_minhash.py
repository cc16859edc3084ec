# ruff: noqa: RUF001 - full-width marks are what is tested
from pathlib import Path

import datasketch
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.dedup.exact import buffers
from tasks.dedup.minhash import EMPTY, permutations, signatures
from tests.oracles import minhash as oracle

WORDS = st.sampled_from(
    [
        "the",
        "The",
        "river",
        "naïve",
        "NAÏVE",
        "x1",
        "漢",
        "かな",
        "、",
        "（１）！",
        "Ａ：ｂ",
        "ГОРА",
        "“so”",
        "—",
        "...",
        "\n",
        "\r\n",
        "\ufeff",
        "e\u0301E\u0301",
        "\U0001f600",
        "\x00",
    ]
)
TEXTS = st.lists(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=30).map(" ".join)), max_size=6)


def sign(texts: list[str], num_perm: int = 128, ngram: int = 5) -> NDArray[np.uint32]:
    return signatures(*buffers(pa.array(texts, pa.string())), num_perm=num_perm, ngram=ngram)


def alike(one: str, other: str) -> float:
    a, b = sign([one, other])
    return float((a == b).mean())


@given(TEXTS, st.sampled_from([(128, 5), (7, 1), (30, 3)]))
@pytest.mark.slow
def test_signatures_are_the_plain_ones(texts: list[str], shape: tuple[int, int]) -> None:
    num_perm, ngram = shape
    expected = [oracle.signature(text, num_perm=num_perm, ngram=ngram) for text in texts]
    assert sign(texts, num_perm, ngram).tolist() == expected


@pytest.mark.parametrize("words", [1, 4, 5, 6, 2047, 2048, 2051, 2052, 2053, 4100, 4104, 9000])
@pytest.mark.slow
def test_signatures_are_the_plain_ones_where_a_block_of_words_ends(words: int) -> None:
    text = " ".join(f"w{i * i % 977}" for i in range(words))
    assert sign([text])[0].tolist() == oracle.signature(text)


def test_signatures_are_the_plain_ones_where_a_block_of_bytes_ends() -> None:
    marks = "a—“b” c、漢（１）！é\u00a0d µ…"
    texts = ["x" * before + marks * repeats for before in range(2030, 2050) for repeats in (1, 30)]
    texts += ["w " * (before // 2) + "x" * (before % 2) + marks for before in range(2030, 2050)]
    texts += ["y" * length for length in (1023, 1024, 2047, 2048, 2049, 4096, 4097)]
    assert sign(texts).tolist() == [oracle.signature(text) for text in texts]


def test_signatures_are_datasketchs_on_the_same_shingles() -> None:
    texts = [
        "",
        "one",
        "one two three four",
        "A river runs through the naïve valley of “quotes” — 漢字かな too",
    ]
    texts.append(" ".join(f"word{i % 300}" for i in range(5000)))
    for text, row in zip(texts, sign(texts), strict=True):
        theirs = datasketch.MinHash(128, scheme="affine32", hashfunc=int)
        theirs.update_batch(oracle.shingle_hashes(text))
        np.testing.assert_array_equal(theirs.hashvalues, row)
        lean = datasketch.LeanMinHash(seed=1, hashvalues=row, scheme="affine32")
        assert lean.jaccard(datasketch.LeanMinHash(theirs)) == 1.0


def test_permutations_are_datasketchs() -> None:
    for ours, theirs in zip(
        permutations(128), datasketch.MinHash(128, scheme="affine32").permutations, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_signatures_do_not_depend_on_the_slice_or_the_neighbours() -> None:
    texts = ["alpha beta gamma delta epsilon zeta", "", "one two three four five six seven", "漢字"]
    column = pa.array(["before", *texts, "after"], pa.string()).slice(1, 4)
    np.testing.assert_array_equal(signatures(*buffers(column)), np.vstack([sign([text]) for text in texts]))


@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), max_size=6), st.integers(0, 3))
def test_signatures_do_not_depend_on_the_width_of_offsets_or_on_nulls(
    texts: list[str | None], first: int
) -> None:
    wide, narrow = (pa.array(texts, kind).slice(first) for kind in (pa.large_string(), pa.string()))
    expected = sign([text or "" for text in texts[first:]])
    np.testing.assert_array_equal(signatures(*buffers(wide)), expected)
    np.testing.assert_array_equal(signatures(*buffers(narrow)), expected)


@pytest.mark.slow
def test_signatures_of_a_line_of_ten_megabytes_are_the_plain_ones() -> None:
    words = ["w" + str(i) * 3000 for i in range(10)]
    line = " ".join(words[i * i % 7 + i % 3] for i in range(3000))
    assert len(line) > 9_000_000
    assert sign([line])[0].tolist() == oracle.signature(line)


def test_document_without_words_has_the_empty_signature() -> None:
    assert (sign(["", " \n ... —“”", "!?"]) == EMPTY).all()


def test_document_of_fewer_words_than_a_shingle_is_one_shingle() -> None:
    assert alike("three small words", "Three, small: words!") == 1.0
    assert alike("three small words", "three small birds") == 0.0


def test_copy_in_other_case_and_punctuation_has_the_same_signature() -> None:
    plain = "NAÏVE readers say 'the end' - and so on, twice over the ÅNGSTRÖM line."
    assert alike(plain, "naïve readers say “the end” — and so on… twice over the ångström line") == 1.0


def test_ideographs_between_marks_are_words_so_that_a_changed_character_leaves_a_copy() -> None:
    text = "".join(
        chr(0x4E00 + i * 37 % 4000) + ("，" if i % 9 == 0 else "。" if i % 23 == 0 else "")
        for i in range(900)
    )
    assert alike(text, text[:200] + "猫" + text[201:]) > 0.9


def test_ten_megabytes_on_one_line_are_signed() -> None:
    line = "".join(chr(97 + i * i % 26) for i in range(997)) * 10_000
    assert (sign([line])[0] != EMPTY).any()
    spaced = " ".join(f"{i % 9973}" for i in range(200_000))
    assert alike(spaced, spaced + " and one more") > 0.95


@pytest.mark.slow
def test_signatures_are_the_plain_ones_on_real_text(data_folder: Path) -> None:
    column = pq.read_table(data_folder / "hard_cases.parquet", columns=["text"])["text"].drop_null()
    texts = [text for text in column.to_pylist() if len(text) < 60_000]
    shard = pq.ParquetFile(data_folder / "near_duplicates" / "shard_00000.parquet")
    texts += next(shard.iter_batches(20, columns=["text"]))["text"].to_pylist()
    for text, row in zip(texts, sign(texts), strict=True):
        theirs = datasketch.MinHash(128, scheme="affine32", hashfunc=int)
        theirs.update_batch(oracle.shingle_hashes(text))
        np.testing.assert_array_equal(theirs.hashvalues, row)
