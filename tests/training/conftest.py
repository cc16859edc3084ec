"""A tiny corpus in a store and a tiny base in a folder: real files, made in a second, no hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from tasks.store.models import resolve_model
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node
from tasks.training.config import Files

if TYPE_CHECKING:
    from tests.training.trial import Calm, Trial

VOCAB = 64
LENGTH = 32

MakeCorpus = Callable[[Store, int], Node]


@pytest.fixture(scope="session")
def make_corpus() -> MakeCorpus:
    """Write a corpus of so many sequences; each token mostly follows from the last.

    The first rows hold several documents, one that runs on and ends, one alone, one that only runs on; then
    any.
    """

    def rows(count: int) -> np.ndarray:
        rng = np.random.default_rng(5)
        ids = np.empty((count, LENGTH), np.uint16)
        ids[:, 0] = rng.integers(VOCAB, size=count)
        for at in range(1, LENGTH):
            noise = rng.integers(VOCAB, size=count)
            ids[:, at] = np.where(rng.random(count) < 0.8, (ids[:, at - 1] * 5 + 3) % VOCAB, noise)
        return ids

    def starts(count: int) -> list[list[int]]:
        rng = np.random.default_rng(6)
        drawn = [np.flatnonzero(rng.random(LENGTH) < 0.1).tolist() for _ in range(count)]
        return [[0, 7, 8, 20], [13], [0], [], *drawn][:count]

    def make(store: Store, count: int) -> Node:
        packed = Node(stage="packing", version=1, config={"sequences": 600}, inputs={})

        def build_packed(writer: NodeWriter) -> None:
            values = pa.array(rows(600).ravel())
            begins = pa.array(starts(600), pa.list_(pa.int32()))
            ids = pa.FixedSizeListArray.from_arrays(values, LENGTH)
            table = pa.table({"input_ids": ids, "doc_starts": begins})
            with writer.parquet(table.schema) as out:
                out.write_table(table, row_group_size=200)

        def build_corpus(writer: NodeWriter) -> None:
            writer.corpus = {
                "budget": count * LENGTH,
                "sequence_length": LENGTH,
                "sequences": count,
                "shards": [{"path": packed.path, "rows": count}],
            }

        build_node(store, packed, build_packed, room="tasks.packing", shard="00000")
        corpus = Node(
            stage="corpus",
            version=1,
            config={"sequences": count},
            inputs={"packing": packed.fingerprint},
            reads={"shards": [{"path": packed.path, "rows": count}]},
        )
        build_node(store, corpus, build_corpus, room="tasks.packing", shard=str(count))
        return corpus

    return make


@pytest.fixture(scope="session")
def config_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers without weights, and a tokenizer."""
    folder = tmp_path_factory.mktemp("given")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": 30,  # 3 ranks and 2 do not divide every tensor: ZeRO-3 pads
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": True,
        "bos_token_id": 40,
        "eos_token_id": 41,
    }
    (folder / "config.json").write_text(json.dumps(config))
    words = {f"w{number}": number for number in range(VOCAB - 2)} | {"<s>": VOCAB - 2, "</s>": VOCAB - 1}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    special = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "w0",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


@pytest.fixture(scope="session")
def dropout_folder(config_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with dropout: random numbers are part of what must resume."""
    folder = tmp_path_factory.mktemp("dropout")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((config_folder / name).read_bytes())
    config = json.loads((config_folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.1}))
    return folder


@pytest.fixture(scope="session")
def tokenizer_files(config_folder: Path) -> Files:
    model = resolve_model(str(config_folder), folder=config_folder, weights=False)
    return Files(model.tokenizer_digest, {"folder": str(config_folder), "reference": "tiny", "revision": ""})


@pytest.fixture(scope="session")
def plain(
    tmp_path_factory: pytest.TempPathFactory,
    config_folder: Path,
    make_corpus: MakeCorpus,
    tokenizer_files: Files,
) -> "Trial":
    from tests.training.trial import Trial  # imports torch, which the unit lane does not

    return Trial(tmp_path_factory.mktemp("plain"), config_folder, make_corpus, tokenizer_files)


@pytest.fixture(scope="session")
def calm(plain: "Trial", tmp_path_factory: pytest.TempPathFactory) -> "Calm":
    """Trained on two ranks of one machine."""
    from tests.training.trial import undisturbed

    return undisturbed(plain, 2, tmp_path_factory.mktemp("kept"))
