"""Words and lines against their plain versions, every character of Unicode included."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from tasks.text.columns import text_buffers
from tasks.text.hashing import combine, find_or_add, fmix64, hash_bytes, table_size
from tasks.text.lines import line_spans, strip
from tasks.text.words import PUNCTUATION, SPACE, WORD, char_class, word_spans
from tests.oracles.repetition import is_punctuation, lines_of, words_of


def spans_of(text: str) -> list[str]:
    data = np.frombuffer(text.encode(), np.uint8)
    starts, stops = np.zeros(len(data), np.int64), np.zeros(len(data), np.int64)
    count = word_spans(data, 0, len(data), starts, stops)
    return [bytes(data[a:b]).decode() for a, b in zip(starts[:count], stops[:count], strict=True)]


def kernel_lines(text: str) -> list[str]:
    data = np.frombuffer(text.encode(), np.uint8)
    starts, stops, breaks = (np.zeros(len(data) // 2 + 1, np.int64) for _ in range(3))
    start, stop = strip(data, 0, len(data))
    count = line_spans(data, start, stop, starts, stops, breaks)
    return [bytes(data[a:b]).decode() for a, b in zip(starts[:count], stops[:count], strict=True)]


def test_every_character_has_the_class_of_the_plain_version() -> None:
    characters = [chr(i) for i in range(0x20000) if not 0xD800 <= i <= 0xDFFF] + [chr(sys.maxunicode)]
    offsets, data = text_buffers(pa.array(characters))
    for number, character in enumerate(characters):
        expected = SPACE if character.isspace() else PUNCTUATION if is_punctuation(character) else WORD
        found = char_class(data, offsets[number], offsets[number + 1])
        assert found == expected, f"U+{ord(character):04X}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('("It\'s" (so-called) ...?!', ["(", '"', "It's", '"', "(", "so-called", ")", "...", "?", "!"]),
        ("--- ---- a--b", ["---", "----", "a--b"]),
        ("\u201cna\u00efve\u201d\u2026\u2026", ["\u201c", "na\u00efve", "\u201d", "\u2026\u2026"]),
        ("a\u00a0b\u3000c\u2028d", ["a", "b", "c", "d"]),
        ("\u200bx \ufeff", ["\u200bx", "\ufeff"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_words_have_their_outer_punctuation_peeled(text: str, words: list[str]) -> None:
    assert spans_of(text) == words == words_of(text)


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "a\rb", "\n\r\n a\n\n \r\rb\n\x85", "", "\u00a0\n", "\r\n\n\r"]
)
def test_lines_stand_between_runs_of_breaks(text: str) -> None:
    assert kernel_lines(text) == lines_of(text)


def test_bytes_that_are_no_utf8_stay_in_bounds() -> None:
    """Whoever writes a column checks its bytes; a kernel must not read beyond them if nobody did."""
    generator = np.random.default_rng(0)
    for _ in range(300):
        data = generator.integers(0, 256, 12).astype(np.uint8)
        starts, stops = np.zeros(12, np.int64), np.zeros(12, np.int64)
        count = word_spans(data, 0, 12, starts, stops)
        assert (stops[:count] <= 12).all()
        assert (starts[:count] < stops[:count]).all()
        assert 0 <= strip(data, 0, 12)[0] <= strip(data, 0, 12)[1] <= 12


def test_hashes_are_the_published_functions() -> None:
    """FNV-1a of "foobar" is in RFC 9923; fmix64 of 1 in every MurmurHash3."""
    assert int(fmix64(np.uint64(1))) == 0xB456BCFC34C2CB2C
    data = np.frombuffer(b"foobar", np.uint8)
    assert hash_bytes(data, 0, 6) == fmix64(np.uint64(0x85944171F73967E8))
    a, b = np.uint64(1), np.uint64(2)
    assert combine(a, b) != combine(b, a)


def test_a_table_finds_what_it_was_given_and_numbers_the_rest() -> None:
    size = table_size(1000)
    keys, numbers = np.zeros(size, np.uint64), np.zeros(size, np.uint32)
    first = [find_or_add(keys, numbers, size, np.uint64(key * 7), key + 1) for key in range(1000)]
    again = [find_or_add(keys, numbers, size, np.uint64(key * 7), 5000) for key in range(1000)]
    assert first == again == list(range(1, 1001))
    assert size * 3 >= 4000
