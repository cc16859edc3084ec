"""A corpus of packed rows, read in any order; or several, as if they were one.

Row i of the corpus is row j of one of its packed shards; a random row costs one row group (1.4 ms of CPU at
100 rows of 2,000 tokens, unless it is cached), one in order .05 ms. Each shard's file is hashed against its
manifest when it is first opened. Memory: `cached_groups` row groups (0.4 MB each at 100 rows of 2,000
uint16). No torch, so evaluation, reports and tests read the same way as training. One thread an object.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.store.errors import StoreDamaged
from tasks.store.json import JSON
from tasks.store.manifest import read_manifest
from tasks.store.paths import Store
from tasks.store.shard import open_node_file

_OPEN_FILES = 32


class PackedCorpus:
    """The rows of a corpus node, or of several: those of the second are numbered on from the first's.

    Args:
        store: where.
        paths: of the corpus nodes, relative to the store; their rows are of one length.
        beside: paths of nodes that hold another column of the same rows, one a shard, which are read instead.
        cached_groups: decoded row groups kept.

    Raises:
        StoreDamaged: a corpus does not stand.
    """

    def __init__(
        self, store: Store, *paths: str, cached_groups: int = 64, beside: Sequence[str] = ()
    ) -> None:
        shards: list[JSON] = []
        lengths: set[int] = set()
        for path in paths:
            manifest = read_manifest(store, path)
            if manifest is None or manifest.shards is None or manifest.sequence_length is None:
                raise StoreDamaged(store.address(path), "it is no whole corpus")
            lengths.add(manifest.sequence_length)
            shards += manifest.shards
        (self.sequence_length,) = lengths
        self._store = store
        self._paths = list(beside) or [str(shard["path"]) for shard in shards]
        assert len(self._paths) == len(shards), "a node beside each shard"
        self._borders = np.cumsum([0, *(int(shard["rows"]) for shard in shards)])
        self._fetched: dict[int, str] = {}
        self._files: OrderedDict[int, tuple[pq.ParquetFile, NDArray[np.int64]]] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int, str], pa.Array] = OrderedDict()
        self._cached_groups = cached_groups
        self._open = ExitStack()

    def __len__(self) -> int:
        return int(self._borders[-1])

    def __enter__(self) -> "PackedCorpus":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; those fetched from a remote store go."""
        for file, _ in self._files.values():
            file.close()
        self._files.clear()
        self._groups.clear()
        self._fetched.clear()
        self._open.close()

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.uint16 | np.uint32]:
        """Token ids of rows, in the order asked for.

        Args:
            indices: (n,) rows of the corpus.

        Returns:
            (n, sequence_length), of the dtype stored.

        Raises:
            IndexError: a row beyond the corpus.
            StoreDamaged: a shard is not what its manifest says.
        """
        return self._fixed(indices, "input_ids", np.dtype(np.uint16))

    def losses(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """A reference's losses of rows, (n, sequence_length); -inf of rows beyond these, which have none."""
        found = np.full((len(indices), self.sequence_length), -np.inf, np.float32)
        known = indices < len(self)
        found[known] = self._fixed(indices[known], "losses", np.dtype(np.float32))
        return found

    def _fixed(self, indices: NDArray[np.int64], column: str, empty: np.dtype[Any]) -> NDArray[Any]:
        found: NDArray[Any] | None = None
        for places, within, group in self._visit(indices, column):
            values = group.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.sequence_length)
            if found is None:
                found = np.empty((len(indices), self.sequence_length), values.dtype)
            found[places] = values[within]
        return np.empty((0, self.sequence_length), empty) if found is None else found

    def doc_starts(self, indices: NDArray[np.int64]) -> list[NDArray[np.int32]]:
        """Where documents start in rows, in the order asked for; the errors of `rows`."""
        return [np.asarray(starts, np.int32) for starts in self._lists(indices, "doc_starts")]

    def doc_ids(self, indices: NDArray[np.int64]) -> list[list[str]]:
        """The documents of rows: the one that runs on into the row, if any, then one a start."""
        return [[str(value) for value in ids] for ids in self._lists(indices, "doc_ids")]

    def _lists(self, indices: NDArray[np.int64], column: str) -> list[list[object]]:
        found: list[list[object]] = [[] for _ in indices]
        for places, within, group in self._visit(indices, column):
            for place, value in zip(places, group.take(pa.array(within)).to_pylist(), strict=True):
                found[place] = value
        return found

    def _visit(
        self, indices: NDArray[np.int64], column: str
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]]:
        """Each row group that holds some of the rows, once: places in the answer, rows within, values."""
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= len(self)):
            raise IndexError(f"rows {indices.min()}..{indices.max()} of a corpus of {len(self)}")
        shards = np.searchsorted(self._borders, indices, side="right") - 1
        for shard in np.unique(shards):
            _, borders = self._file(int(shard))
            places = np.flatnonzero(shards == shard)
            rows = indices[places] - self._borders[shard]
            groups = np.searchsorted(borders, rows, side="right") - 1
            for group in np.unique(groups):
                chosen = groups == group
                values = self._group(int(shard), int(group), column)
                yield places[chosen], rows[chosen] - borders[group], values

    def _group(self, shard: int, group: int, column: str) -> pa.Array:
        key = (shard, group, column)
        if key not in self._groups:
            file, _ = self._file(shard)
            self._groups[key] = file.read_row_group(group, columns=[column])[column].combine_chunks()
            if len(self._groups) > self._cached_groups:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _file(self, shard: int) -> tuple[pq.ParquetFile, NDArray[np.int64]]:
        """A shard's open file and where its row groups begin."""
        if shard not in self._files:
            if shard not in self._fetched:  # hashed once; the file of a node that stands never changes
                self._fetched[shard] = str(
                    self._open.enter_context(open_node_file(self._store, self._paths[shard]))
                )
            file = pq.ParquetFile(self._fetched[shard])
            sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            self._files[shard] = (file, np.cumsum([0, *sizes]))
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1][0].close()
        self._files.move_to_end(shard)
        return self._files[shard]
