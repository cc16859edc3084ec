import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from tasks.dedup.exact import buffers, exact_hashes, lower_cased, text_hashes
from tests.oracles import minhash as oracle

TEXTS = st.lists(
    st.text(st.one_of(st.sampled_from(" \t\n\v\f\r\x1c\xa0aAÄß"), st.characters(codec="utf-8"))), max_size=6
)


def hashes(texts: list[str]) -> list[bytes]:
    return [row.tobytes() for row in exact_hashes(*buffers(pa.array(texts, pa.string())))]


@given(TEXTS)
def test_exact_hashes_are_of_the_normalised_text(texts: list[str]) -> None:
    assert hashes(texts) == [oracle.exact_hash(text) for text in texts]


def test_case_and_spacing_do_not_tell_texts_apart_but_punctuation_does() -> None:
    first, *same, other = hashes(["Ein Ärgernis", "ein  ärgernis\n", "\t EIN\r\nÄRGERNIS", "Ein Ärgernis."])
    assert set(same) == {first}
    assert other != first


def test_ascii_alone_is_lowered_as_it_is_beside_other_letters() -> None:
    assert hashes(["Plain TEXT"]) == hashes(["Plain TEXT", "ÄÖ"])[:1]


def test_every_character_is_lowered_as_arrow_lowers_it() -> None:
    for first in range(0, 0x110000, 0x8000):
        points = [code for code in range(first, first + 0x8000) if not 0xD800 <= code < 0xE000]
        column = pa.array([f"A{chr(code)}Z" for code in points] + [None], pa.string())
        assert lower_cased(column).fill_null("").equals(pc.utf8_lower(column).fill_null(""))


def test_whitespace_across_a_block_of_bytes_is_one_space() -> None:
    texts = ["x" * length + " \n\t " * repeats + "y " for length in range(2040, 2052) for repeats in (1, 600)]
    assert hashes(texts) == [oracle.exact_hash(text) for text in texts]


def test_text_hash_is_the_front_of_the_exact_hash() -> None:
    exact = exact_hashes(*buffers(pa.array(["a", "b"], pa.string())))
    assert text_hashes(exact).tolist() == [int.from_bytes(row[:8].tobytes(), "little") for row in exact]
    assert text_hashes(exact).dtype == np.uint64
