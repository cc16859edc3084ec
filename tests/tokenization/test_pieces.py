"""Ids by pieces are the library's, whatever the tokenizer and whatever the text."""

import logging
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from tasks.text.columns import text_buffers
from tasks.tokenization.cuts import derive_cuts
from tasks.tokenization.encode import load_encoder
from tasks.tokenization.lookup import publish
from tasks.tokenization.pieces import CacheSize, PieceEncoder, library_ids
from tasks.tokenization.proven import ProvenEncoder
from tasks.tokenization.regex import Unsupported
from tests.tokenization.conftest import PROSE
from tests.tokenization.families import FAMILIES, family

FRAGMENTS = [
    *(
        "the",
        " the",
        "Leaf",
        "a",
        "B",
        "1",
        "23",
        " 456.",
        "don",
        "'s",
        "'S",
        "'ll",
        "'",
        "!",
        "--",
        "...",
        "_",
    ),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\v", "\x1c", "\x85", "\u00a0", "\u3000", "\u2028"),
    *("``", "''", '"', "\u2019s", "\u2581", "\u2581\u2581x", "\u5149\u5408", "e\u0301", "\u0301", "\u200d"),
    *("\U0001f600", "\x00", "\ufeff", "\ufffd", "\u017f", "\u0130", "\u03a3", "\u00e9", "\u0e01\u0e32"),
    *("</s>", "<s>", "<unk>", "[INST]", "<tool_call>", "<0x0A>", "</", "[IN", "ST]"),
]
DOCUMENT = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


@cache
def tokenizer_of(name: str) -> Tokenizer:
    return family(name, [*PROSE, *FRAGMENTS[:60]], 700)


@cache
def pieces_of(name: str) -> PieceEncoder:
    """One for all examples, so that most lookups hit what earlier ones left."""
    return PieceEncoder(tokenizer_of(name), derive_cuts(tokenizer_of(name)))


def assert_equal_to_library(tokenizer: Tokenizer, pieces: PieceEncoder, text: pa.Array) -> None:
    ids, lengths = pieces.encode(text, np.uint32)
    wanted, wanted_lengths = library_ids(tokenizer, text.to_pylist())
    assert lengths.tolist() == wanted_lengths.tolist()
    assert ids.tolist() == wanted.tolist()


@pytest.fixture
def llama2() -> PieceEncoder:
    return PieceEncoder(tokenizer_of("llama2"), derive_cuts(tokenizer_of("llama2")))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@given(documents=st.lists(DOCUMENT, max_size=8))
@settings(deadline=None, max_examples=30)
def test_ids_by_pieces_are_the_librarys(name: str, documents: list[str]) -> None:
    text = pa.array(documents, pa.string())
    assert_equal_to_library(tokenizer_of(name), pieces_of(name), text)
    assert_equal_to_library(tokenizer_of(name), pieces_of(name), text)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_encoded_by_pieces_of_about_a_word(name: str) -> None:
    encoder = ProvenEncoder(tokenizer_of(name), np.uint16)
    assert encoder.how == "pieces"
    pieces = PieceEncoder(tokenizer_of(name), derive_cuts(tokenizer_of(name)))
    pieces.encode(pa.array(["The leaf turns light into sugar and sugar into leaf"] * 3), np.uint16)
    assert 7 <= pieces.num_pieces <= 20


@pytest.mark.parametrize("name", ["composed", "qwen", "unigram", "t5", "xlm_roberta", "wordpiece"])
def test_where_normalisation_looks_at_neighbours_cuts_are_between_ascii_characters(name: str) -> None:
    table = derive_cuts(tokenizer_of(name)).table.reshape(256, 256)
    assert table[:128, :128].any()
    assert not table[128:].any()
    assert not table[:, 128:].any()
    assert not table[ord("\r"), ord("\n")]


def test_a_piece_that_leads_its_document_is_not_the_same_piece_within(llama2: PieceEncoder) -> None:
    ids, lengths = llama2.encode(pa.array(["water", "x\nwater", "water"]), np.uint16)
    first, _, third = np.split(ids, np.cumsum(lengths)[:-1])
    assert first.tolist() == third.tolist()
    assert_equal_to_library(tokenizer_of("llama2"), llama2, pa.array(["water", "\nwater", " water"]))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_of_either_kind_of_column_are_read_where_they_stand(
    llama2: PieceEncoder, kind: pa.DataType
) -> None:
    text = pa.array(["one", "two words", "", "\u5149 four", "five"], kind)
    for start in range(6):
        assert_equal_to_library(tokenizer_of("llama2"), llama2, text.slice(start, 3))


@pytest.mark.parametrize(
    "size", [CacheSize(entries=5), CacheSize(piece_bytes=30), CacheSize(ids=20), CacheSize(entries=1)]
)
def test_a_full_cache_gives_the_same_ids_and_grows_no_more(size: CacheSize) -> None:
    tokenizer = tokenizer_of("gpt2")
    pieces = PieceEncoder(tokenizer, derive_cuts(tokenizer), size)
    for _ in range(3):
        assert_equal_to_library(tokenizer, pieces, pa.array(PROSE))
    assert 0 < pieces.num_pieces < 20


def test_a_piece_found_by_the_hash_of_another_is_told_apart_by_its_bytes() -> None:
    """Sixty-four bits do not meet by chance, so the entry of one word is filed under the other's hash."""
    tokenizer = tokenizer_of("wordpiece")
    one, other = (PieceEncoder(tokenizer, derive_cuts(tokenizer)) for _ in range(2))
    one.encode(pa.array(["leaf"]), np.uint16)
    other.encode(pa.array(["root"]), np.uint16)
    publish(0, 1, other._hashes, one._slots)
    assert_equal_to_library(tokenizer, one, pa.array(["root", "leaf"]))


def test_threads_share_a_cache_while_they_fill_it(llama2: PieceEncoder) -> None:
    texts = [pa.array([f"word{n % 97} {n * k} times{k}\n" * 20 for n in range(60)]) for k in range(1, 5)]
    wanted = [library_ids(tokenizer_of("llama2"), text.to_pylist())[0].tolist() for text in texts]
    wrong: list[int] = []

    def work(first: int) -> None:
        for turn in range(12):
            k = (first + turn) % len(texts)
            if llama2.encode(texts[k], np.uint32)[0].tolist() != wanted[k]:
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    known = llama2.num_pieces
    llama2.encode(texts[0], np.uint32)
    assert llama2.num_pieces == known


def dropout(tokenizer: Tokenizer) -> None:
    tokenizer.model.dropout = 0.1


def merged_next(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")


def anchored(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|\s+$|\s"), "isolated")


def whole_bytes(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)


def unigram_unsplit(tokenizer: Tokenizer) -> None:
    tokenizer.model = models.Unigram([("<unk>", 0.0), ("a", -1.0), (" ", -2.0)], 0, byte_fallback=False)
    tokenizer.pre_tokenizer = None


def replaced(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Replace(Regex("a+b"), "c")


def spaced_token(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("ONE", normalized=True)])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (dropout, "drop out at random"),
        (merged_next, "merged"),
        (anchored, "an anchor"),
        (whole_bytes, "byte-level BPE over whole documents"),
        (unigram_unsplit, "Unigram over whole documents"),
        (replaced, "Replace of"),
        (spaced_token, "'ONE', which is sought after normalisation"),
    ],
)
def test_where_no_cut_can_be_derived_the_library_encodes_whole_documents_and_it_is_said(
    change: Callable[[Tokenizer], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_of("gpt2").to_str())
    tokenizer.encode_special_tokens = True
    change(tokenizer)
    with pytest.raises(Unsupported, match=f"(?i){why}"):
        derive_cuts(tokenizer)
    encoder = ProvenEncoder(tokenizer, np.uint16)
    with caplog.at_level(logging.WARNING, "tasks"):
        assert encoder.how.startswith("library, whole documents: ")
    assert "encoded whole by tokenizers" in caplog.text
    if change is not dropout:
        ids, _ = encoder.encode(pa.array(["a aab ONE"]))
        assert ids.tolist() == tokenizer.encode("a aab ONE", add_special_tokens=False).ids


def test_one_other_id_ends_encoding_by_pieces_before_it_is_used(caplog: pytest.LogCaptureFixture) -> None:
    """The cuts are right for this tokenizer as it was; then its normalizer changes under them."""
    tokenizer = Tokenizer.from_str(tokenizer_of("gpt2").to_str())
    tokenizer.encode_special_tokens = True
    encoder = ProvenEncoder(tokenizer, np.uint16)
    assert encoder.how == "pieces"
    tokenizer.normalizer = normalizers.Replace("leaf", "root")
    text = pa.array(["water", "The leaf and the leaf"])
    wanted = tokenizer.encode(text[1].as_py(), add_special_tokens=False).ids
    assert encoder.encode(text[1:])[0].tolist() != wanted
    with caplog.at_level(logging.WARNING, "tasks"):
        encoder.prove(text)
    assert "'The leaf and the leaf' has other ids" in encoder.how
    assert "The leaf and the leaf" in caplog.text
    assert encoder.encode(text[1:])[0].tolist() == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama2", "gpt2", "starcoder", "llama3", "qwen", "t5", "wordpiece"])
def test_ids_of_real_text_are_the_librarys(name: str, data_folder: Path) -> None:
    """Some documents of one shard, and the hard cases but the very long ones."""
    edu = pq.read_table(data_folder / "edu" / "edu-00000.parquet", columns=["text"])["text"].combine_chunks()
    hard = pq.read_table(data_folder / "hard_cases.parquet", columns=["text"])["text"].drop_null()
    tokenizer = family(name, edu.slice(0, 12).to_pylist(), 2000)
    text = pa.array([t for t in edu.to_pylist()[40::150] + hard.to_pylist() if len(t) < 30_000])
    assert len(text_buffers(text)[1]) > 200_000
    assert_equal_to_library(tokenizer, PieceEncoder(tokenizer, derive_cuts(tokenizer)), text)


@pytest.mark.slow
def test_ids_of_a_real_llama_type_tokenizer_are_the_librarys(llama_type: Path, data_folder: Path) -> None:
    encoder = load_encoder(llama_type)
    assert encoder.proven.how == "pieces"
    text = pq.read_table(data_folder / "edu" / "edu-00001.parquet", columns=["text"])["text"][:300]
    ids, lengths = encoder.encode(text.combine_chunks())
    wanted, wanted_lengths = library_ids(encoder.tokenizer, text.to_pylist())
    np.testing.assert_array_equal(ids, wanted)
    np.testing.assert_array_equal(lengths, wanted_lengths)
