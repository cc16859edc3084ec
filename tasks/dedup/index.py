"""The index of kept documents: append-only, in bounded memory, a pure function of the verdict nodes before.

Nothing of it outlives the process: signature nodes and verdict nodes *are* the index, immutable parts, a part
a shard. Within a process one index is carried from shard to shard; a fresh process reads it back by walking
the verdicts' chain, once a run. Both ways give the same answers, and a rebuilt shard finds the index as it
stood before that shard.

Memory: the buckets (`tasks.dedup.parts`), 210 bytes a kept document at the default 25 bands, until they would
pass `MEMORY_BYTES`; from then on the large parts lie in files and are read band by band. So an index takes
`MEMORY_BYTES` and a batch's arrays (20 MB; 4 KB more for each full bucket that a batch meets), whatever the
corpus: ten million documents were judged at 0.7 GB. Signatures, exact hashes and ids are only looked at where
a bucket says so; they always lie in files, 560 bytes a kept document at 128 slots. Only kept documents count:
a copy costs nothing. The files are on the store's disk, for a remote store in DAPT_SCRATCH (no memory disk,
if it is to be of use), and vanish with the process.
"""

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.dedup.config import SIGNATURES_STAGE, STAGE, MatchingConfig, SignatureConfig
from tasks.dedup.lsh import BUCKET_LIMIT, KEPT, Candidates, Documents, Groups, enter, group, judge
from tasks.dedup.parts import Parts
from tasks.dedup.scratch import ScratchArray, ScratchTexts
from tasks.settings import Settings
from tasks.store.errors import StoreDamaged
from tasks.store.manifest import Manifest, read_manifest
from tasks.store.paths import Store
from tasks.store.shard import iter_batches, read_table

logger = logging.getLogger(__name__)

HELD_OUT = "held_out"
"""The reason of documents that are held out; for the index they are kept."""

MEMORY_BYTES = 2**30
"""That the buckets of an index take of memory: all of them up to 2.5 million kept documents."""

BATCH_ROWS = 8192
MOST_INDEXES = 2
"""Kept in a process: the domain's and the general corpus'."""


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
        memory_bytes: beyond them the buckets lie in files.
        folder: where its files are; None: the system's place for temporary files.
    """

    def __init__(
        self,
        num_perm: int,
        matching: MatchingConfig,
        *,
        bucket_limit: int = BUCKET_LIMIT,
        memory_bytes: int = MEMORY_BYTES,
        folder: Path | None = None,
    ) -> None:
        self.num_docs = 0
        self.num_compared = 0
        """Pairs of signatures, so far."""
        self._matching = matching
        self._bucket_limit = bucket_limit
        self._min_equal = least_equal(matching.threshold, num_perm)
        self._signatures = ScratchArray(np.uint32, (num_perm,), folder)
        self._exact = ScratchArray(np.uint64, (2,), folder)
        self._ids = ScratchTexts(folder)
        self._parts = Parts(matching.num_bands + 1, bucket_limit, memory_bytes, folder)

    @property
    def memory_bytes(self) -> int:
        """What it takes of memory between two batches."""
        return self._parts.memory_bytes

    @property
    def file_bytes(self) -> int:
        """What it takes of the disk."""
        columns = (self._signatures, self._exact, self._ids, self._parts)
        return sum(column.file_bytes for column in columns)

    def resolve(self, signatures: NDArray[np.uint32], exact: NDArray[np.uint64], ids: pa.Array) -> Verdicts:
        """Judge documents in source order, each against all kept before it; those kept enter.

        Args:
            signatures: (batch, num_perm).
            exact: (batch, 2), the exact hashes.
            ids: (batch,) strings.
        """
        verdicts, matches = np.empty(len(ids), np.uint8), np.empty(len(ids), np.int32)
        with self._batch(signatures, exact) as (batch, groups, candidates, kept):
            self.num_docs, compared = judge(
                batch,
                groups,
                candidates,
                kept,
                self.num_docs,
                self._matching.rows_per_band,
                self._min_equal,
                self._bucket_limit,
                verdicts,
                matches,
            )
        self.num_compared += compared
        new = verdicts == KEPT
        self._ids.extend(ids.filter(pa.array(new)))
        return Verdicts(verdicts, _scatter(self._ids.take(matches[~new]), ~new))

    def extend(self, signatures: NDArray[np.uint32], exact: NDArray[np.uint64], ids: pa.Array) -> None:
        """Enter documents that were judged before and kept, in their order."""
        with self._batch(signatures, exact) as (batch, groups, candidates, kept):
            self.num_docs = enter(batch, groups, candidates, kept, self.num_docs, self._bucket_limit)
        self._ids.extend(ids)

    @contextlib.contextmanager
    def _batch(
        self, signatures: NDArray[np.uint32], exact: NDArray[np.uint64]
    ) -> Iterator[tuple[Documents, Groups, Candidates, Documents]]:
        """A batch, what is known of its buckets, and the kept documents; then the batch's members enter."""
        batch = Documents(signatures, exact)
        groups = group(batch, self._matching.num_bands, self._matching.rows_per_band)
        for column in (self._signatures, self._exact):
            column.reserve(self.num_docs + len(exact))
        kept = Documents(self._signatures.array, self._exact.array)
        yield batch, groups, self._parts.candidates(groups), kept
        self._parts.add(groups)
        for column in (self._signatures, self._exact):
            column.forget()


def least_equal(threshold: float, num_perm: int) -> int:
    """The least number of equal slots that reaches the threshold."""
    return next(equal for equal in range(num_perm + 1) if equal / num_perm >= threshold)


def _scatter(values: pa.Array, where: NDArray[np.bool_]) -> pa.Array:
    """Values where `where` is true, in order, and nulls elsewhere."""
    return values.take(pa.array(np.cumsum(where) - 1, mask=~where))


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
    index = index or Index(num_perm, matching, folder=_scratch(store))
    for manifest in reversed(chain):
        for signatures, exact, ids in _kept(store, manifest):
            index.extend(signatures, exact, ids)
    if chain:
        logger.info(
            "index read back from %d shards: %d documents, %.0f MB in memory, %.0f MB in files",
            len(chain),
            index.num_docs,
            index.memory_bytes / 1e6,
            index.file_bytes / 1e6,
        )
    return index


def _scratch(store: Store) -> Path | None:
    """Where an index' files are: on the store's disk, for a remote store in DAPT_SCRATCH."""
    if store.local is not None:
        return store.local
    scratch = Settings().scratch
    return Path(scratch) if scratch else None


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
