import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from tasks.store.errors import SourceError, StoreDamaged
from tasks.store.manifest import Manifest
from tasks.store.models import resolve_model
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table
from tasks.tokenization import shard
from tasks.tokenization.config import (
    TokenizationConfig,
    TokenizerRef,
    node,
    tokenizer_of,
    trained_tokenizer_node,
    trained_tokenizer_of,
)
from tasks.tokenization.shard import build_tokenization, build_tokenizer

ShardOf = Callable[..., tuple[Node, Node]]


def ref_of(folder: Path) -> TokenizerRef:
    return tokenizer_of(resolve_model(str(folder), folder=folder, weights=False))


def tokenized(store: Store, made: Node) -> tuple[Manifest, pa.Table]:
    manifest, _ = build_node(store, made, build_tokenization, room="tasks.tokenization", shard="00000")
    return manifest, read_table(store, made.path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_every_document_that_dedup_kept_has_its_ids_in_order(
    store: Store, shard_of: ShardOf, byte_level: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "BATCH_BYTES", 300)
    monkeypatch.setattr(shard, "_READ_ROWS", 10)
    texts = [f"Document {n}: the water rises.\nAnd falls {n * 3} times." for n in range(40)]
    kept = [n % 4 != 1 for n in range(40)]
    download, dedup = shard_of(store, texts, kept)
    manifest, table = tokenized(store, node(TokenizationConfig(), download, dedup, ref_of(byte_level)))
    wanted = [text for text, keep in zip(texts, kept, strict=True) if keep]
    tokenizer = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    assert [tokenizer.decode(ids) for ids in table["input_ids"].to_pylist()] == wanted
    assert table["id"].to_pylist() == [f"{n:016x}-{n}" for n in range(40) if kept[n]]
    assert (manifest.documents_in, manifest.documents_out, manifest.dropped) == (30, 30, {})
    assert manifest.tokens == sum(map(len, table["input_ids"].to_pylist()))
    assert manifest.details == {
        "eos_id": 2,
        "vocab_size": tokenizer.get_vocab_size(),
        "text_bytes": sum(map(len, wanted)),
    }


def test_a_dropped_document_has_a_reason_and_no_ids(
    store: Store, shard_of: ShardOf, byte_level: Path
) -> None:
    download, dedup = shard_of(store, ["The water rises.", "", "\u5149\u5408\u4f5c\u7528" * 30, "z" * 4000])
    manifest, table = tokenized(store, node(TokenizationConfig(), download, dedup, ref_of(byte_level)))
    assert table["reason"].to_pylist() == [None, "empty", "bytes_per_token", "bytes_per_token"]
    assert [ids is None for ids in table["input_ids"].to_pylist()] == [False, True, True, True]
    assert table["kept"].to_pylist() == [True, False, False, False]
    assert manifest.documents_in == manifest.documents_out + sum(manifest.dropped.values())


def test_a_shard_of_which_nothing_was_kept_is_an_empty_table(
    store: Store, shard_of: ShardOf, byte_level: Path
) -> None:
    download, dedup = shard_of(store, ["a", "b", "c"], [False] * 3)
    manifest, table = tokenized(store, node(TokenizationConfig(), download, dedup, ref_of(byte_level)))
    assert (table.num_rows, manifest.documents_in, manifest.tokens) == (0, 0, 0)
    assert table.schema.field("input_ids").type == pa.list_(pa.uint16())


def test_verdicts_of_other_documents_are_damage(store: Store, shard_of: ShardOf, byte_level: Path) -> None:
    download, _ = shard_of(store, ["a", "b"])
    _, dedup = shard_of(store, ["a", "b", "c"])
    with pytest.raises(StoreDamaged, match="keeps 3 documents, 2 of them"):
        tokenized(store, node(TokenizationConfig(), download, dedup, ref_of(byte_level)))


def test_a_tokenizer_changed_since_the_plan_is_refused(
    store: Store, shard_of: ShardOf, byte_level: Path, tmp_path: Path
) -> None:
    for file in byte_level.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    made = node(TokenizationConfig(), *shard_of(store, ["a"]), ref_of(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<s>"}))
    with pytest.raises(SourceError, match="changed since this was planned"):
        tokenized(store, made)


def test_a_tokenizer_is_trained_and_used_and_the_same_twice(tmp_path: Path, shard_of: ShardOf) -> None:
    texts = [f"The root {n} keeps secrets, the leaf turns {n * 17} light into sugar." for n in range(80)]
    config = TokenizationConfig(train_vocab_size=300)
    files = []
    for place in ("one", "two"):
        store = Store(str(tmp_path / place))
        download, dedup = shard_of(store, texts, [n > 5 for n in range(80)])
        trained = trained_tokenizer_node(config, download, dedup)
        manifest, _ = build_node(store, trained, build_tokenizer, room="tasks.tokenization", shard="00000")
        assert (manifest.documents_in, manifest.details) == (74, {"vocab_size": 300, "eos_id": 2})
        files.append({entry.name: entry.sha256 for entry in manifest.files})
        done, table = tokenized(store, node(config, download, dedup, trained_tokenizer_of(trained)))
        tokenizer = Tokenizer.from_file(str(store.local_path(f"{trained.path}/tokenizer.json")))
        assert tokenizer.decode(table["input_ids"][0].as_py()) == texts[6]
        assert done.details["vocab_size"] == 300
    assert files[0] == files[1]
    assert set(files[0]) == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}


def test_nothing_to_train_a_tokenizer_on_is_told(store: Store, shard_of: ShardOf) -> None:
    download, dedup = shard_of(store, ["a", "b"], [False, False])
    trained = trained_tokenizer_node(TokenizationConfig(train_vocab_size=300), download, dedup)
    with pytest.raises(SourceError, match="nothing to train a tokenizer on"):
        build_node(store, trained, build_tokenizer, room="tasks.tokenization", shard="00000")


def test_output_of_tokenization_is_golden(
    store: Store,
    shard_of: ShardOf,
    golden: Callable[[str, Any], None],
    logical_digest: Callable[[pa.Table], str],
) -> None:
    """Through a trained tokenizer, so that nothing but this room shapes it."""
    texts = [
        f"Leaf {n} turns light into sugar {n * n} times.\n\n\u00c9l\u00e8ve \u5149 \x00 </s>"
        for n in range(30)
    ]
    config = TokenizationConfig(train_vocab_size=320)
    download, dedup = shard_of(store, [*texts, "", "zzzz" * 200])
    trained = trained_tokenizer_node(config, download, dedup)
    build_node(store, trained, build_tokenizer, room="tasks.tokenization", shard="00000")
    manifest, table = tokenized(store, node(config, download, dedup, trained_tokenizer_of(trained)))
    golden(
        "tokenization",
        {
            "rows": table.num_rows,
            "tokens": manifest.tokens,
            "dropped": manifest.dropped,
            "table": logical_digest(table),
        },
    )


@pytest.mark.slow
def test_real_text_through_a_real_tokenizer(
    store: Store, shard_of: ShardOf, llama_type: Path, data_folder: Path
) -> None:
    texts = pq.read_table(data_folder / "edu" / "edu-00000.parquet", columns=["text"])["text"].to_pylist()[
        :40
    ]
    download, dedup = shard_of(store, texts)
    manifest, _ = tokenized(store, node(TokenizationConfig(), download, dedup, ref_of(llama_type)))
    assert manifest.details["vocab_size"] == 32_000
    assert manifest.documents_out >= 39
    assert 2 < manifest.details["text_bytes"] / manifest.tokens < 5
