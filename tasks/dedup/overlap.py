"""How many held-out documents of one corpus have a near-duplicate in what another trains on.

In: signature and verdict nodes of both, as they stand. Out: two numbers. Each corpus was cleared of its own
duplicates, but the two were never compared: what a slice shares with the other's training text measures
memory. Signatures, bands and threshold are dedup's, and so is the index: a new one for each batch of the
other corpus, of which the slice's documents are asked. Memory is the slice's signatures and one such index
(20 MB), whatever the corpus; the price is one reading of its signatures.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.dedup.config import DedupConfig
from tasks.dedup.index import BATCH_ROWS, HELD_OUT, Index, columns
from tasks.dedup.lsh import KEPT
from tasks.store.paths import Store
from tasks.store.shard import iter_batches, read_table

Signed = tuple[NDArray[np.uint32], NDArray[np.uint64], pa.Array]
"""Signatures (n, num_perm), exact hashes (n, 2), ids."""


def count_near(
    store: Store,
    held_out: Iterable[tuple[str, str]],
    trained: Iterable[tuple[str, str]],
    config: DedupConfig,
    *,
    max_documents: int,
) -> tuple[int, int]:
    """Held-out documents, and how many of them have a near-duplicate in the other corpus.

    Args:
        store: where the nodes stand.
        held_out: (signatures, dedup) nodes of the slice's shards, in order.
        trained: those of the other corpus' shards.
        config: both corpora's.
        max_documents: the first so many of the slice count, as in its evaluation.

    Raises:
        StoreDamaged: a node is not whole.
    """
    left = _first(_chosen(store, held_out, HELD_OUT), max_documents)
    total = len(left[2])
    for slots, exact, ids in _chosen(store, trained, None):
        if not len(left[2]):
            break
        index = Index(config.num_perm, config)
        index.extend(slots, exact, ids)
        alone = index.resolve(*left).verdicts == KEPT
        left = _frozen(left[0][alone], left[1][alone], left[2].filter(pa.array(alone)))
    return total, total - len(left[2])


def _chosen(store: Store, shards: Iterable[tuple[str, str]], reason: str | None) -> Iterator[Signed]:
    """The signed documents whose verdict has a reason, batch by batch; None: of those that are kept."""
    for signatures, dedup in shards:
        verdicts = read_table(store, dedup, columns=["id", "reason"])
        wanted = pc.is_null(verdicts["reason"]) if reason is None else pc.equal(verdicts["reason"], reason)
        ids = verdicts["id"].filter(wanted).combine_chunks()
        for batch in iter_batches(store, signatures, rows=BATCH_ROWS) if len(ids) else ():
            found = batch.filter(pc.is_in(batch["id"], value_set=ids))
            if len(found):
                yield columns(found)


def _first(parts: Iterator[Signed], most: int) -> Signed:
    """The first so many documents."""
    found, count = [], 0
    for part in parts:
        found.append(part)
        count += len(part[2])
        if count >= most:
            break
    if not found:
        return np.empty((0, 0), np.uint32), np.empty((0, 2), np.uint64), pa.array([], pa.string())
    slots, exact, ids = zip(*found, strict=True)
    return _frozen(np.concatenate(slots)[:most], np.concatenate(exact)[:most], pa.concat_arrays(ids)[:most])


def _frozen(slots: NDArray[np.uint32], exact: NDArray[np.uint64], ids: pa.Array) -> Signed:
    """Read-only, as what comes from the store is: one version of each kernel serves both."""
    slots.flags.writeable = exact.flags.writeable = False
    return slots, exact, ids
