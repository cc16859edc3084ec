"""A tokenizer as the files of a Hugging Face folder, so that `from_pretrained` loads what we used.

Always through `PreTrainedTokenizerFast`: from `tokenizer.model` alone, and through `LlamaTokenizer` even
beside a right `tokenizer.json`, transformers 5.23 gives other ids than the ones trained on.
"""

import json

from tokenizers import Tokenizer

from tasks.store.json import JSON
from tasks.tokenization.encode import Encoder

_CLASS = "PreTrainedTokenizerFast"
_KEPT = ("special_tokens_map.json", "chat_template.jinja")


def huggingface_files(tokenizer: Tokenizer, special: dict[str, str]) -> dict[str, bytes]:
    """The files by name.

    Args:
        tokenizer: any.
        special: `eos_token`, `bos_token`, `unk_token`, `pad_token` by role; those that there are.
    """
    config: JSON = {
        "tokenizer_class": _CLASS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # transformers' word for "no limit"
        **special,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=False).encode(),
        "tokenizer_config.json": _pretty(config),
        "special_tokens_map.json": _pretty(special),
    }


def portable_files(encoder: Encoder) -> dict[str, bytes]:
    """A given tokenizer's files, so that transformers loads from them the ids that we use.

    Its own tokenizer.json and configuration with another class, and its chat template; from `tokenizer.model`
    alone, what it was converted to.

    Args:
        encoder: of the folder.
    """
    folder = encoder.folder
    eos = str(encoder.tokenizer.id_to_token(encoder.facts.eos_id))
    if encoder.judge is not None:
        special = {"eos_token": eos}
        if encoder.unknown_id >= 0:
            special["unk_token"] = str(encoder.tokenizer.id_to_token(encoder.unknown_id))
        if encoder.judge.bos_id() >= 0:
            special["bos_token"] = str(encoder.tokenizer.id_to_token(encoder.judge.bos_id()))
        files = huggingface_files(encoder.tokenizer, special)
    else:
        given = folder / "tokenizer_config.json"
        config: JSON = json.loads(given.read_bytes()) if given.is_file() else {}
        config = {key: value for key, value in config.items() if key != "auto_map"}
        files = {
            "tokenizer.json": (folder / "tokenizer.json").read_bytes(),
            "tokenizer_config.json": _pretty({"eos_token": eos, **config, "tokenizer_class": _CLASS}),
        }
    kept = {name: (folder / name).read_bytes() for name in _KEPT if (folder / name).is_file()}
    return kept | files


def _pretty(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
