"""A tokenizer as the files of a Hugging Face folder, so that `from_pretrained` loads what we used.

Always through `PreTrainedTokenizerFast`: from `tokenizer.model` alone, and through `LlamaTokenizer` even
beside a right `tokenizer.json`, transformers 5.23 gives other ids than the ones trained on.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer

from tasks.store.config import JSON
from tasks.tokenization import spiece
from tasks.tokenization.encode import load_encoder


def huggingface_files(tokenizer: Tokenizer, special: dict[str, str]) -> dict[str, bytes]:
    """The files by name.

    Args:
        tokenizer: any.
        special: `eos_token`, `bos_token`, `unk_token`, `pad_token` by role; those that there are.
    """
    config: JSON = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # transformers' word for "no limit"
        **special,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=False).encode(),
        "tokenizer_config.json": _pretty(config),
        "special_tokens_map.json": _pretty(special),
    }


def converted_files(folder: Path) -> dict[str, bytes]:
    """For a folder with `tokenizer.model` alone: files from which its tokenizer loads with the right ids.

    Empty where the folder has a tokenizer.json: that is exact as it is.

    Raises:
        SourceError: the tokenizer cannot be used.
    """
    if (folder / "tokenizer.json").is_file():
        return {}
    encoder = load_encoder(folder)
    model = spiece.read_model((folder / "tokenizer.model").read_bytes())
    special = {"eos_token": str(encoder.tokenizer.id_to_token(encoder.facts.eos_id))}
    if encoder.unknown_id >= 0:
        special["unk_token"] = str(encoder.tokenizer.id_to_token(encoder.unknown_id))
    if encoder.judge is not None and encoder.judge.bos_id() >= 0:
        special["bos_token"] = model.pieces[encoder.judge.bos_id()].text
    return huggingface_files(encoder.tokenizer, special)


def _pretty(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
