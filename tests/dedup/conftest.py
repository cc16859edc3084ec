"""Shards as the rooms before leave them: downloaded text and filter verdicts, small and real."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.dedup.config import DedupConfig, HeldOutConfig, contamination_node, node, signatures_node
from tasks.dedup.decontaminate import build_contamination
from tasks.dedup.index import INDEXES
from tasks.dedup.shard import build_signatures, build_verdicts
from tasks.store.fingerprint import combined_digest
from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node, read_table

ROOM = "tasks.dedup"


class Corpus:
    """A store, and the dedup nodes of shard after shard in it."""

    def __init__(
        self, root: Path, config: DedupConfig, held_out: HeldOutConfig, items: pa.Table | None
    ) -> None:
        self.store = Store(str(root))
        self.config, self.held_out = config, held_out
        self.nodes: list[Node] = []
        self.signatures: list[Node] = []
        self.manifests: list[Manifest] = []
        self.benchmarks: Node | None = None
        if items is not None:
            name = combined_digest(map(repr, items.to_pylist()))
            self.benchmarks = Node(stage="benchmarks", version=1, config={}, inputs={"items": name})
            build_node(self.store, self.benchmarks, _writing(items), room=ROOM, shard="00000")

    def add(
        self, texts: Sequence[str], *, dropped: Sequence[int] = (), first: int = 0
    ) -> list[dict[str, object]]:
        """Judge one more shard; `dropped` by the filter. Ids are d0, d1, ... from `first` on."""
        download, filtering = self._inputs(texts, dropped, first)
        signed = signatures_node(self.config, download, filtering)
        builds = [(signed, build_signatures)]
        looked = contamination_node(download, filtering, self.benchmarks) if self.benchmarks else None
        if looked is not None:
            builds.append((looked, build_contamination))
        judged = node(self.config, self.held_out, signed, self.nodes[-1] if self.nodes else None, looked)
        for made, build in [*builds, (judged, build_verdicts)]:
            manifest, _ = build_node(self.store, made, build, room=ROOM, shard="00000")
            assert manifest.documents_in == manifest.documents_out + sum(manifest.dropped.values())
            self.manifests.append(manifest)
        self.nodes.append(judged)
        self.signatures.append(signed)
        rows: list[dict[str, object]] = read_table(self.store, judged.path).to_pylist()
        return rows

    def _inputs(self, texts: Sequence[str], dropped: Sequence[int], first: int) -> tuple[Node, Node]:
        ids = pa.array([f"d{first + i}" for i in range(len(texts))], pa.string())
        kept = pa.array([i not in dropped for i in range(len(texts))], pa.bool_())
        names = {"text": combined_digest([*map(repr, texts), str(first)])}
        download = Node(stage="download", version=1, config={}, inputs=names)
        filtering = Node(
            stage="filtering",
            version=1,
            config={"dropped": list(dropped)},
            inputs={"download": download.fingerprint},
        )
        tables = (
            (download, pa.table({"id": ids, "text": pa.array(texts, pa.string())})),
            (filtering, pa.table({"id": ids, "kept": kept})),
        )
        for made, table in tables:
            build_node(self.store, made, _writing(table), room=ROOM, shard="00000")
        return download, filtering


def _writing(table: pa.Table) -> Callable[[NodeWriter], None]:
    def write(writer: NodeWriter) -> None:
        with writer.parquet(table.schema) as out:
            out.write_table(table, row_group_size=7)

    return write


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Corpus]:
    """`corpus(name, config=..., held_out=..., items=...)`: an empty one in a store of that name."""
    INDEXES.clear()

    def make(
        name: str = "store",
        config: DedupConfig | None = None,
        held_out: HeldOutConfig | None = None,
        items: pa.Table | None = None,
    ) -> Corpus:
        aside = held_out or HeldOutConfig(fraction=0.0)
        return Corpus(tmp_path / name, config or DedupConfig(), aside, items)

    return make
