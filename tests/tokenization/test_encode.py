import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from tasks.store.errors import SourceError
from tasks.tokenization.encode import load_encoder
from tasks.tokenization.facts import tokenizer_facts


def test_ids_are_those_of_the_library_one_document_at_a_time(byte_level: Path) -> None:
    texts = ["one two", "", "Light, sugar.\n\nWater ", "\u5149\u5408 \U0001f600"]
    reference = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    ids, lengths = load_encoder(byte_level).encode(pa.array(texts))
    wanted = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    assert ids.dtype == np.uint16
    assert ids.tolist() == [i for document in wanted for i in document]
    assert lengths.tolist() == [len(document) for document in wanted]


def test_no_documents_are_no_ids(byte_level: Path) -> None:
    ids, lengths = load_encoder(byte_level).encode(pa.array([], pa.string()))
    assert (len(ids), len(lengths)) == (0, 0)


def test_special_token_text_is_encoded_as_text(byte_level: Path) -> None:
    encoder = load_encoder(byte_level)
    text = "Text with <s> and </s> and <unk> in it."
    ids, _ = encoder.encode(pa.array([text]))
    assert not set(ids.tolist()) & {0, 1, 2}
    assert encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text


def test_truncation_and_padding_of_the_file_are_switched_off(byte_level: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    text = pa.array(["The water rises and the root keeps secrets.", "a"])
    for ours, whole in zip(
        load_encoder(tmp_path).encode(text), load_encoder(byte_level).encode(text), strict=True
    ):
        np.testing.assert_array_equal(ours, whole)


@pytest.mark.parametrize(
    ("name", "body", "eos_id"),
    [
        ("tokenizer_config.json", {"eos_token": "</s>"}, 2),
        ("tokenizer_config.json", {"eos_token": {"content": "<s>", "special": True}}, 1),
        ("special_tokens_map.json", {"eos_token": "</s>"}, 2),
        ("generation_config.json", {"eos_token_id": [2, 0]}, 2),
        ("config.json", {"eos_token_id": 1}, 1),
    ],
)
def test_eos_is_found_where_models_name_it(
    byte_level: Path, tmp_path: Path, name: str, body: dict[str, object], eos_id: int
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((byte_level / "tokenizer.json").read_bytes())
    (tmp_path / name).write_text(json.dumps(body))
    facts = tokenizer_facts(tmp_path)
    assert (facts.eos_id, facts.vocab_size) == (eos_id, load_encoder(byte_level).tokenizer.get_vocab_size())


@pytest.mark.parametrize("config", [{}, {"eos_token": None}, {"eos_token": "<|end|>"}])
def test_a_tokenizer_without_a_usable_eos_is_refused_by_folder(
    byte_level: Path, tmp_path: Path, config: dict[str, object]
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((byte_level / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=str(tmp_path)):
        tokenizer_facts(tmp_path)


def test_a_folder_without_a_tokenizer_and_a_broken_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no tokenizer\.json"):
        tokenizer_facts(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match=r"tokenizer\.json cannot be read"):
        tokenizer_facts(tmp_path)
