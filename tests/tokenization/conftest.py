"""Small real tokenizers, and shards to run them on."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import ByteLevelBPETokenizer

from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node

PROSE = [
    f"Leaf {n} turns light into sugar.\nIt breathes {n * 7 % 13} times an hour, the water rises.\n"
    f"The root, which nobody sees, keeps {n % 3} more secrets than the flower does."
    for n in range(60)
]


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of at most 400 ids with `</s>` as its EOS."""
    folder = tmp_path_factory.mktemp("byte-level")
    bpe = ByteLevelBPETokenizer()
    specials = ["<unk>", "<s>", "</s>"]
    bpe.train_from_iterator(PROSE, vocab_size=400, special_tokens=specials, show_progress=False)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


@pytest.fixture(scope="session")
def llama_type(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real 32k Llama-type tokenizer.model alone."""
    spec = find_spec("mistral_common")
    if spec is None or spec.origin is None:
        pytest.skip("mistral-common, which carries a Llama-type tokenizer.model, is not installed")
    folder = tmp_path_factory.mktemp("llama-type")
    source = Path(spec.origin).parent / "data" / "tokenizer.model.v1"
    (folder / "tokenizer.model").write_bytes(source.read_bytes())
    return folder


@pytest.fixture
def shard_of() -> Callable[..., tuple[Node, Node]]:
    """`shard_of(store, texts, kept)`: a download and a dedup node that stand, with these documents."""

    def make(store: Store, texts: list[str], kept: list[bool] | None = None) -> tuple[Node, Node]:
        ids = [f"{n:016x}-{n}" for n in range(len(texts))]
        verdicts = kept or [True] * len(texts)
        download = Node(stage="download", version=1, config={}, inputs={"texts": json.dumps(texts)})
        dedup = Node(
            stage="dedup",
            version=1,
            config={},
            inputs={"download": download.fingerprint, "kept": json.dumps(verdicts)},
        )

        def build_download(writer: NodeWriter) -> None:
            schema = pa.schema([("id", pa.string()), ("source_id", pa.string()), ("text", pa.string())])
            with writer.parquet(schema) as out:
                out.write_table(
                    pa.table({"id": ids, "source_id": [None] * len(ids), "text": texts}, schema=schema),
                    row_group_size=7,
                )

        def build_dedup(writer: NodeWriter) -> None:
            schema = pa.schema(
                [
                    ("id", pa.string()),
                    ("kept", pa.bool_()),
                    ("reason", pa.string()),
                    ("duplicate_of", pa.string()),
                ]
            )
            # Of every third dropped document the filter had dropped it before: it has no row here.
            rows = [(i, k) for n, (i, k) in enumerate(zip(ids, verdicts, strict=True)) if k or n % 3]
            with writer.parquet(schema) as out:
                out.write_table(
                    pa.table(
                        {
                            "id": [i for i, _ in rows],
                            "kept": [k for _, k in rows],
                            "reason": [None if k else "exact" for _, k in rows],
                            "duplicate_of": [None if k else ids[0] for _, k in rows],
                        },
                        schema=schema,
                    )
                )
            writer.documents_out = sum(verdicts)

        build_node(store, download, build_download, room="tasks.download", shard="00000")
        build_node(store, dedup, build_dedup, room="tasks.dedup", shard="00000")
        return download, dedup

    return make
