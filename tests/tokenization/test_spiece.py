import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from tasks.store.errors import SourceError
from tasks.tokenization import spiece
from tasks.tokenization.encode import load_encoder

SENTENCES = [
    f"The quick brown fox number {n} jumps over {n * 3} lazy dogs, and {'again ' * (n % 4)}home."
    for n in range(200)
]


def train(folder: Path, **options: object) -> Path:
    """A SentencePiece model of Llama's kind, small."""
    model = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 380,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "minloglevel": 2,
    }
    SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES), model_writer=model, **(settings | options))
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder / "tokenizer.model"


def test_a_trained_model_gives_the_ids_of_sentencepiece(tmp_path: Path) -> None:
    file = train(tmp_path)
    tokenizer, judge = spiece.convert(file), SentencePieceProcessor(model_file=str(file))
    texts = [*SENTENCES, *spiece.PROBES, "</s> <s> <unk>", "zzz\U0001f680"]
    assert [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)] == judge.encode(
        texts
    )
    assert tokenizer.decode(judge.encode(SENTENCES[3])) == SENTENCES[3]
    encoder = load_encoder(tmp_path)
    assert (encoder.facts.vocab_size, encoder.facts.eos_id, encoder.unknown_id) == (380, 2, 0)
    assert encoder.byte_ids.sum() == 253  # tab and line ends are no sign of a foreign script


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model_type": "unigram", "vocab_size": 299}, "no BPE model"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalisation rules"),
        ({"remove_extra_whitespaces": True}, "normalisation rules"),
    ],
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, options: dict[str, object], why: str) -> None:
    with pytest.raises(SourceError, match=why):
        spiece.convert(train(tmp_path, **options))


def test_a_mismatch_is_refused_with_the_place(tmp_path: Path) -> None:
    """Transformers 5.23 orders merges by id: the error this module exists to prevent."""
    file = train(tmp_path)
    tokenizer, judge = spiece.convert(file), SentencePieceProcessor(model_file=str(file))
    tokenizer.normalizer = None
    with pytest.raises(SourceError, match="differs from sentencepiece at token 0 of 'a b'"):
        spiece.require_equal(tokenizer, judge, ["a b"], file)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x0a\xff\xff"])
def test_what_is_no_model_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(SourceError, match="cannot be read as a SentencePiece model"):
        spiece.convert(tmp_path / "tokenizer.model")


@pytest.mark.slow
def test_a_real_llama_type_model_gives_the_ids_of_sentencepiece(llama_type: Path, data_folder: Path) -> None:
    encoder = load_encoder(llama_type)
    rows = pq.read_table(data_folder / "hard_cases.parquet", columns=["text"])["text"].to_pylist()
    texts = [text for text in rows if text is not None and len(text) < 20_000]
    encoder.require_faithful(pa.array(texts))
    injected = next(text for text in texts if "</s>" in text)
    ids, _ = encoder.encode(pa.array([injected]))
    assert not set(ids.tolist()) & {0, 1, 2}
    assert encoder.tokenizer.decode(ids.tolist()) == injected
