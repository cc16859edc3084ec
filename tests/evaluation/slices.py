"""Download and dedup nodes of a few hand-made documents."""

import pyarrow as pa

from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node

DOWNLOAD = pa.schema({"id": pa.string(), "source_id": pa.string(), "text": pa.string()})
VERDICTS = pa.schema(
    {"id": pa.string(), "kept": pa.bool_(), "reason": pa.string(), "duplicate_of": pa.string()}
)


def make_shard(store: Store, name: str, documents: dict[str, tuple[str, str | None]]) -> tuple[Node, Node]:
    """A download and its verdicts from {id: (text, reason; None: kept)}; "gone": no row in the verdicts."""

    def write_texts(writer: NodeWriter) -> None:
        rows = [{"id": key, "source_id": None, "text": text} for key, (text, _) in documents.items()]
        with writer.parquet(DOWNLOAD) as out:
            out.write_table(pa.Table.from_pylist(rows, DOWNLOAD))

    def write_verdicts(writer: NodeWriter) -> None:
        rows = [
            {"id": key, "kept": reason is None, "reason": reason, "duplicate_of": None}
            for key, (_, reason) in documents.items()
            if reason != "gone"
        ]
        with writer.parquet(VERDICTS) as out:
            out.write_table(pa.Table.from_pylist(rows, VERDICTS))

    download = Node(stage="download", version=1, config={}, inputs={"source": name})
    dedup = Node(stage="dedup", version=1, config={}, inputs={"signatures": name})
    build_node(store, download, write_texts, room="tasks.download", shard=name)
    build_node(store, dedup, write_verdicts, room="tasks.dedup", shard=name)
    return download, dedup
