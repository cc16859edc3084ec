"""Making and reading nodes: files under temporary names, then the manifest; digests checked on every read.

`build_node` is the one way into the store. It takes the node's lock, looks again whether the node stands,
lets the stage write, and commits. Killed at any moment it leaves no manifest, so nothing is taken for whole;
what it left is removed by the next holder of the lock. A failure stands in `failures/` until it is made good.
"""

import contextlib
import datetime
import hashlib
import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.runtime.memory import PeakMemory
from tasks.runtime.progress import Progress, tell
from tasks.store.code import code_commit, package_version
from tasks.store.errors import ResourceError, StoreDamaged
from tasks.store.failure import failure_path, record_failure
from tasks.store.fingerprint import source_hash
from tasks.store.json import JSON
from tasks.store.lock import locked
from tasks.store.manifest import (
    FileEntry,
    Manifest,
    read_manifest,
    require_whole,
    set_aside,
    stands,
    write_manifest,
)
from tasks.store.node import Node
from tasks.store.paths import TEMPORARY, Store, temporary_name

logger = logging.getLogger(__name__)

DATA = "data.parquet"


class NodeWriter:
    """A node in the making: what a stage writes its files and counts to."""

    def __init__(
        self, store: Store, node: Node, folder: Path, *, shard: str = "", how: JSON | None = None
    ) -> None:
        self.store, self.node, self.folder, self.shard = store, node, folder, shard
        self.documents_in = 0
        self.documents_out = 0
        self.tokens = 0
        self.dropped: Counter[str] = Counter()
        self.details: JSON = {}
        self.how: JSON = dict(how or {})
        self.corpus: JSON = {}
        self._files: list[tuple[Path, FileEntry]] = []

    @contextlib.contextmanager
    def parquet(self, schema: pa.Schema, *, name: str = DATA, **options: Any) -> Iterator[pq.ParquetWriter]:
        """A Parquet file of this node, zstd; `write_table` and `write_batch` fill it.

        Args:
            schema: of every batch; what does not fit raises.
            name: the file's name in the node.
            options: more for `pyarrow.parquet.ParquetWriter`.
        """
        temporary = self._beside(name)
        with pq.ParquetWriter(temporary, schema, **{"compression": "zstd"} | options) as writer:
            yield writer
        rows = pq.read_metadata(temporary).num_rows
        self._files.append((temporary, _entry(name, temporary, rows)))

    def file(self, name: str, data: bytes) -> None:
        """A small file of this node."""
        temporary = self._beside(name)
        temporary.write_bytes(data)
        self._files.append((temporary, _entry(name, temporary, None)))

    def _beside(self, name: str) -> Path:
        """A temporary name beside that of a file of this node, its folder made."""
        temporary = self.folder / temporary_name(name)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        return temporary

    def progress(self, done: float, total: float, unit: str, **fields: float | str) -> None:
        """Tell how far this node is; cheap, from any thread."""
        tell(Progress(self.node.stage, self.shard, done, total, unit, fields))

    def folder_of(self, made: Path) -> None:
        """Take every file of a finished local folder (a model) into this node, moving them."""
        for path in sorted(made.rglob("*")):
            if path.is_file():
                name = str(path.relative_to(made))
                self._files.append((path, _entry(name, path, None)))

    def commit(self) -> list[FileEntry]:
        """Move the files to their names; the manifest is the caller's."""
        for temporary, entry in self._files:
            self.store.take(temporary, f"{self.node.path}/{entry.name}")
        return [entry for _, entry in self._files]


def _entry(name: str, file: Path, rows: int | None) -> FileEntry:
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return FileEntry(name=name, sha256=digest, bytes=file.stat().st_size, rows=rows)


def build_node(
    store: Store,
    node: Node,
    build: Callable[[NodeWriter], None],
    *,
    room: str,
    shard: str,
    how: JSON | None = None,
    scratch: str | None = None,
    run: str = "",
) -> tuple[Manifest, bool]:
    """Make a node, or find that it stands.

    Args:
        store: where.
        node: what.
        build: writes the files and counts through the `NodeWriter` it is given.
        room: the package that computes it (`tasks.filtering`): its source hash is recorded as drift.
        shard: how people call it ("00017"); stands in the failure record.
        how: what says how to compute it (ranks, device); recorded, no identity.
        scratch: where a remote store's files are made before they are sent; None: the system's own place.
        run: the flow run that makes it; stands in the failure record, to find its log by.

    Returns:
        The manifest, and whether it was made now.

    Raises:
        DaptError: what the stage raised; recorded under `failures/` first.
    """
    found = stands(store, node.path)
    if found:
        return found, False
    try:
        with locked(store, node.path):
            return _built(store, node, build, room=room, shard=shard, how=how, scratch=scratch)
    except Exception as err:
        record_failure(store, node, shard, run, err)
        raise


def _built(
    store: Store,
    node: Node,
    build: Callable[[NodeWriter], None],
    *,
    room: str,
    shard: str,
    how: JSON | None,
    scratch: str | None,
) -> tuple[Manifest, bool]:
    """Make a node under its lock, unless its last holder did."""
    found = stands(store, node.path)
    if found:
        return found, False
    folder = store.scratch(node.path, scratch)
    try:
        _clean(store, folder)
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _build(build, NodeWriter(store, node, folder, shard=shard, how=how), room)
    finally:
        _clean(store, folder)
    store.remove(failure_path(node))
    return manifest, True


def _build(build: Callable[[NodeWriter], None], writer: NodeWriter, room: str) -> Manifest:
    node = writer.node
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    with PeakMemory() as memory:
        build(writer)
    files = writer.commit()
    manifest = Manifest(
        stage=node.stage,
        version=node.version,
        fingerprint=node.fingerprint,
        config=node.config,
        inputs=node.inputs,
        files=files,
        documents_in=writer.documents_in,
        documents_out=writer.documents_out,
        dropped=dict(sorted(writer.dropped.items())),
        tokens=writer.tokens,
        drift=source_hash(room),
        package=package_version(),
        commit=code_commit(),
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 3),
        peak_rss_bytes=memory.peak_bytes,
        details=writer.details,
        how=writer.how,
        **writer.corpus,
    )
    write_manifest(writer.store, manifest)
    return manifest


def _clean(store: Store, folder: Path) -> None:
    """Remove what a killed or failed maker left."""
    if store.local is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.rglob(f"*{TEMPORARY}*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def open_node_file(store: Store, path: str, name: str = DATA) -> Iterator[Path]:
    """A file of a node on the local disk, its digest checked; a remote one is fetched for the while.

    Raises:
        StoreDamaged: the node does not stand, or the file is not what its manifest says.
    """
    manifest = read_manifest(store, path)
    entry = next((f for f in manifest.files if f.name == name), None) if manifest else None
    if entry is None:
        if manifest is None:
            set_aside(store, path)
        raise StoreDamaged(store.address(path), f"it has no whole manifest that names {name}")
    if store.local is not None:
        file = store.local_path(f"{path}/{name}")
        if not file.exists():
            set_aside(store, path)
            raise StoreDamaged(store.address(f"{path}/{name}"), "it is missing")
        require_whole(store, path, entry, file)
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="dapt-") as folder:
        file = Path(folder) / Path(name).name
        try:
            store.fs.get_file(store.inside(f"{path}/{name}"), str(file))
        except FileNotFoundError as err:
            set_aside(store, path)
            raise StoreDamaged(store.address(f"{path}/{name}"), "it is missing") from err
        require_whole(store, path, entry, file)
        yield file


def read_table(store: Store, path: str, *, columns: list[str] | None = None, name: str = DATA) -> pa.Table:
    """All of a node's table (columns of it): for what is small, verdicts and the like.

    Raises:
        StoreDamaged: see `open_node_file`.
    """
    with open_node_file(store, path, name) as file:
        return pq.read_table(file, columns=columns)


def iter_batches(
    store: Store, path: str, *, columns: list[str] | None = None, rows: int = 1000, name: str = DATA
) -> Iterator[pa.RecordBatch]:
    """A node's table in record batches of at most `rows` rows; memory is bounded by the largest row group.

    Raises:
        StoreDamaged: see `open_node_file`.
    """
    with open_node_file(store, path, name) as file, pq.ParquetFile(file) as parquet:
        yield from parquet.iter_batches(batch_size=rows, columns=columns, use_threads=False)


def require_disk(store: Store, needed_bytes: int) -> None:
    """Refuse to start what would not fit on a local disk.

    Raises:
        ResourceError: too little is free, with both numbers.
    """
    if store.local is None:
        return
    store.local.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store.local).free
    if needed_bytes > free:
        raise ResourceError(
            f"the store {store.root} has {free / 1e9:.1f} GB free, "
            f"about {needed_bytes / 1e9:.1f} GB are needed; free some, or set DAPT_STORE to a larger disk"
        )
