"""The index of kept documents: append-only, in memory, a pure function of the verdict nodes before.

Nothing of it is on disk: signature nodes and verdict nodes *are* the index. Within a process one index is
carried from shard to shard; a fresh process reads it back by walking the verdicts' chain (0.6 KB a document).
Both ways give the same answers, and a rebuilt shard finds the index as it stood before that shard.

Memory a document, at the default 128 slots and 25 bands: 512 bytes of signature, 16 exact hash, 100 chains,
8 bookkeeping, 320-480 tables (filled by half to three quarters), some 30 for its id: about 1.1 KB, so 1.1 GB
for a million kept documents. Arrays grow in place (`realloc`), without a second copy. Only kept documents
count: a copy costs nothing.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.dedup.config import SIGNATURES_STAGE, STAGE, MatchingConfig, SignatureConfig
from tasks.dedup.lsh import BUCKET_LIMIT, KEPT, Tables, extend, regrow, resolve
from tasks.store.errors import StoreDamaged
from tasks.store.manifest import Manifest, read_manifest
from tasks.store.paths import Store
from tasks.store.shard import iter_batches, read_table

logger = logging.getLogger(__name__)

HELD_OUT = "held_out"
"""The reason of documents that are held out; for the index they are kept."""

MOST_FILLED = 0.75
"""Of a table's slots; linear probing looks at 2.5 of them then, on average, before it finds a free one."""

BATCH_ROWS = 8192
MOST_INDEXES = 2
"""Kept in a process: the domain's and the general corpus'."""

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Of a batch of documents."""

    verdicts: NDArray[np.uint8]
    """(batch,): `lsh.KEPT`, `lsh.EXACT` or `lsh.NEAR`."""
    duplicate_of: pa.Array
    """(batch,) ids, null where the document is kept."""


class Index:
    """Kept documents, and the question whether another is a copy of one of them.

    Args:
        num_perm: slots a signature.
        matching: threshold and banding.
        bucket_limit: documents a bucket; see `tasks.dedup.lsh`.
    """

    def __init__(self, num_perm: int, matching: MatchingConfig, *, bucket_limit: int = BUCKET_LIMIT) -> None:
        self.num_docs = 0
        self._judged = 0
        self._matching = matching
        self._bucket_limit = bucket_limit
        self._min_equal = least_equal(matching.threshold, num_perm)
        self._ids: list[pa.Array] = []
        self._tables = Tables(
            signatures=np.empty((0, num_perm), np.uint32),
            exact=np.empty((0, 2), np.uint64),
            after=np.empty((0, matching.num_bands), np.int32),
            seen=np.empty(0, np.int64),
            buckets=np.zeros(matching.num_bands, np.uint64),
            same=np.zeros(1, np.int32),
        )

    @property
    def num_bytes(self) -> int:
        """Memory of its arrays."""
        return sum(array.nbytes for array in self._tables) + sum(int(ids.nbytes) for ids in self._ids)

    def resolve(self, signatures: NDArray[np.uint32], exact: NDArray[np.uint64], ids: pa.Array) -> Verdicts:
        """Judge documents in source order, each against all kept before it; those kept enter.

        Args:
            signatures: (batch, num_perm).
            exact: (batch, 2), the exact hashes.
            ids: (batch,) strings.
        """
        verdicts, matches = np.empty(len(ids), np.uint8), np.empty(len(ids), np.int32)
        self._reserve(self.num_docs + len(ids))
        self.num_docs = resolve(
            self._tables,
            self.num_docs,
            self._judged,
            self._matching.rows_per_band,
            self._min_equal,
            self._bucket_limit,
            signatures,
            exact,
            verdicts,
            matches,
        )
        self._judged += len(ids)
        kept = verdicts == KEPT
        self._ids.append(ids.filter(pa.array(kept)))
        found = pa.chunked_array(self._ids, pa.string()).take(pa.array(matches[~kept]))
        return Verdicts(verdicts, _scatter(found, ~kept))

    def extend(self, signatures: NDArray[np.uint32], exact: NDArray[np.uint64], ids: pa.Array) -> None:
        """Enter documents that were judged before and kept, in their order."""
        self._reserve(self.num_docs + len(ids))
        self.num_docs = extend(
            self._tables, self.num_docs, self._matching.rows_per_band, self._bucket_limit, signatures, exact
        )
        self._ids.append(ids)

    def _reserve(self, needed: int) -> None:
        """Make room for `needed` rows, by half again at least, so that growing costs O(1) a document."""
        tables = self._tables
        if needed > len(tables.seen):
            rows = max(needed, len(tables.seen) * 3 // 2, 1024)
            for array in (tables.signatures, tables.exact, tables.after, tables.seen):
                _grow(array, rows)
        slots = len(tables.same)
        if needed > MOST_FILLED * slots:
            wanted = max(int(needed / MOST_FILLED) + 1, slots * 3 // 2, 2048)
            _grow(tables.buckets, wanted * self._matching.num_bands)
            self._tables = tables._replace(same=np.zeros(wanted, np.int32))
            regrow(self._tables, slots, self.num_docs)


def least_equal(threshold: float, num_perm: int) -> int:
    """The least number of equal slots that reaches the threshold."""
    return next(equal for equal in range(num_perm + 1) if equal / num_perm >= threshold)


def _grow(array: NDArray[T], rows: int) -> None:
    """Lengthen an array in place; nobody else holds a view of it."""
    array.resize((rows, *array.shape[1:]), refcheck=False)


def _scatter(values: pa.ChunkedArray, where: NDArray[np.bool_]) -> pa.Array:
    """Values where `where` is true, in order, and nulls elsewhere."""
    place = pa.array(np.cumsum(where) - 1, mask=~where)
    return pa.array(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values).take(place)


class Indexes:
    """The indexes of this process by the verdict node they stand behind; safe to use from threads.

    An index is handed out once: whoever extends it puts it back under the node it made. Two that ask for the
    same one (two runs at once) get one each, the second read back from the store.
    """

    def __init__(self, most: int = MOST_INDEXES) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._held: OrderedDict[tuple[str, str], Index] = OrderedDict()

    def put(self, store: Store, fingerprint: str, index: Index) -> None:
        """Keep an index that stands behind this verdict node; the one unused for longest goes."""
        with self._lock:
            self._held[store.root, fingerprint] = index
            while len(self._held) > self._most:
                self._held.popitem(last=False)

    def take(self, store: Store, fingerprint: str) -> Index | None:
        """Hand out what is held."""
        with self._lock:
            return self._held.pop((store.root, fingerprint), None)

    def clear(self) -> None:
        """Give the memory back."""
        with self._lock:
            self._held.clear()


INDEXES = Indexes()


def index_behind(store: Store, predecessor: str | None, *, num_perm: int, matching: MatchingConfig) -> Index:
    """The index as it stands behind a verdict node: carried, extended from an earlier one, or read back.

    Args:
        store: where the nodes are.
        predecessor: fingerprint of the verdict node; None: before the first shard.
        num_perm: slots a signature.
        matching: threshold and banding, of the whole chain.

    Raises:
        StoreDamaged: a node of the chain does not stand, or its verdicts are not those of its signatures.
    """
    chain: list[Manifest] = []
    index = None
    while predecessor is not None:
        index = INDEXES.take(store, predecessor)
        if index is not None:
            break
        chain.append(_manifest(store, predecessor))
        predecessor = chain[-1].inputs.get("predecessor")
    index = index or Index(num_perm, matching)
    for manifest in reversed(chain):
        for signatures, exact, ids in _kept(store, manifest):
            index.extend(signatures, exact, ids)
    if chain:
        logger.info(
            "index read back from %d shards: %d documents, %.0f MB",
            len(chain),
            index.num_docs,
            index.num_bytes / 1e6,
        )
    return index


def columns(batch: pa.RecordBatch) -> tuple[NDArray[np.uint32], NDArray[np.uint64], pa.Array]:
    """Signatures (batch, num_perm), exact hashes (batch, 2) and ids of a batch of a signature node."""
    signatures = batch["signature"]
    exact = np.frombuffer(b"".join(batch["exact_hash"].to_pylist()), "<u8").reshape(-1, 2)
    slots = signatures.flatten().to_numpy(zero_copy_only=True)
    return slots.reshape(len(batch), signatures.type.list_size), exact, batch["id"]


def signed_shape(store: Store, path: str) -> tuple[int, int]:
    """Documents and slots a signature of a signature node.

    Raises:
        StoreDamaged: it does not stand.
    """
    manifest = read_manifest(store, path)
    if manifest is None:
        raise StoreDamaged(store.address(path), "it has no whole manifest")
    return manifest.documents_out, SignatureConfig.model_validate(manifest.config).num_perm


def _kept(
    store: Store, manifest: Manifest
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint64], pa.Array]]:
    """What a verdict node let into the index, batch by batch."""
    verdicts = read_table(store, manifest.path, columns=["id", "kept", "reason"])
    entered = pc.or_(verdicts["kept"], pc.fill_null(pc.equal(verdicts["reason"], HELD_OUT), False))
    at = 0
    wrong = StoreDamaged(store.address(manifest.path), "its verdicts are not those of its signatures")
    for batch in iter_batches(
        store, path_of(SIGNATURES_STAGE, manifest.inputs["signatures"]), rows=BATCH_ROWS
    ):
        rows = slice(at, at + len(batch))
        at += len(batch)
        if not verdicts["id"][rows].combine_chunks().equals(batch["id"]):
            raise wrong
        yield columns(batch.filter(entered[rows].combine_chunks()))
    if at != len(verdicts):
        raise wrong


def _manifest(store: Store, fingerprint: str) -> Manifest:
    path = path_of(STAGE, fingerprint)
    manifest = read_manifest(store, path)
    if manifest is None:
        raise StoreDamaged(store.address(path), "it has no whole manifest, and later shards stand on it")
    return manifest


def path_of(stage: str, fingerprint: str) -> str:
    """Where a node stands, relative to the store's root."""
    return f"{stage}/{fingerprint[:2]}/{fingerprint}"
