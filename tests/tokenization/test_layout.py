"""What we save loads in transformers with the ids we used."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from tasks.tokenization.encode import load_encoder
from tasks.tokenization.layout import huggingface_files, portable_files
from tasks.tokenization.train import train_byte_level

pytestmark = pytest.mark.train

TEXTS = [f"The root {n} keeps secrets,\n\nthe leaf turns {n * 17} light into sugar." for n in range(50)]


def saved(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_trained_tokenizer_loads_in_transformers(tmp_path: Path) -> None:
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    folder = saved(tmp_path / "trained", huggingface_files(train_byte_level(TEXTS, 300), special))
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_encoder(folder)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (1, 2, 3, 300)
    for text in [*TEXTS, "caf\u00e9 \u5149 \U0001f600  x"]:
        ids = theirs(text)["input_ids"]
        assert ids == ours.encode(pa.array([text]))[0].tolist()
        assert theirs.decode(ids) == text


def test_a_converted_tokenizer_loads_in_transformers(llama_type: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "converted", portable_files(load_encoder(llama_type)))
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_encoder(llama_type)
    assert (theirs.bos_token, theirs.eos_token, theirs.unk_token) == ("<s>", "</s>", "<unk>")
    assert (
        json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
        == "PreTrainedTokenizerFast"
    )
    for text in [*TEXTS, " leading", "caf\u00e9 \u5149 \U0001f600  x"]:
        assert (
            theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(pa.array([text]))[0].tolist()
        )


def test_a_given_tokenizer_keeps_its_own_files_and_loads_by_the_class_that_is_exact(tmp_path: Path) -> None:
    special = {"unk_token": "<unk>", "eos_token": "</s>"}
    given = saved(tmp_path / "given", huggingface_files(train_byte_level(TEXTS, 300), special))
    config = json.loads((given / "tokenizer_config.json").read_text())
    told = config | {"tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoTokenizer": ["code.py", None]}}
    (given / "tokenizer_config.json").write_text(json.dumps(told))
    (given / "chat_template.jinja").write_text("{{ messages }}")
    folder = saved(tmp_path / "portable", portable_files(load_encoder(given)))
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_encoder(given)
    assert type(theirs).__name__ != "LlamaTokenizer"
    assert theirs.chat_template == "{{ messages }}"
    assert "auto_map" not in json.loads((folder / "tokenizer_config.json").read_text())
    for text in [*TEXTS, " leading"]:
        assert (
            theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(pa.array([text]))[0].tolist()
        )
