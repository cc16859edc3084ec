"""Text made from a seed: some documents are short, some repeat themselves, some repeat others."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import ByteLevelBPETokenizer

VOCABULARY = 512
EOS = 2
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_PER_ROW_GROUP = 25


def make_documents(count: int, seed: int = 7) -> list[str]:
    """So many documents: of ten about one is short or repetitive, one a copy, one nearly a copy."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(900)]
    documents: list[str] = []
    for number in range(count):
        lines = [
            f"{' '.join(rng.choices(words, k=rng.randint(9, 14))).capitalize()}."
            for _ in range(rng.randint(4, 9))
        ]
        if number % 11 == 7:
            lines = lines[:1]
        elif number % 13 == 9:
            lines = lines[:2] * 4
        elif number % 12 == 5:
            lines = rng.choice(documents).split("\n")
        elif number % 10 == 4:
            lines = rng.choice(documents).split("\n")
            lines[-1] = lines[-1].replace(" ", " indeed ", 1)
        documents.append("\n".join(lines))
    return documents


def write_file(path: Path, documents: list[str]) -> Path:
    """A source file, parquet or jsonl by its name; each document has the source's own id."""
    ids = [f"{path.stem}-{number}" for number in range(len(documents))]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": ids, "text": documents}), path, row_group_size=_PER_ROW_GROUP)
    else:
        rows = [json.dumps({"id": i, "text": text}) for i, text in zip(ids, documents, strict=True)]
        path.write_text("\n".join(rows) + "\n")
    return path


def write_sources(folder: Path, documents: list[str], num_files: int = 4) -> Path:
    """The documents in as many files, parquet and jsonl in turn, in order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(documents) // num_files)
    for number in range(num_files):
        suffix = "jsonl" if number % 2 else "parquet"
        write_file(folder / f"part-{number}.{suffix}", documents[number * size : (number + 1) * size])
    return folder


def write_base(folder: Path, documents: list[str]) -> Path:
    """A byte-level BPE and the config of a tiny Llama, without weights, in Hugging Face layout."""
    bpe = ByteLevelBPETokenizer()
    specials = ["<unk>", "<s>", "</s>"]
    bpe.train_from_iterator(documents, vocab_size=VOCABULARY, special_tokens=specials, show_progress=False)
    bpe.save(str(folder / "tokenizer.json"))
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | {"unk_token": "<unk>"}))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": EOS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
