"""The held-out documents of a slice: chosen by dedup's verdicts, read from the download, in source order.

In: (download, dedup) nodes in order. Out: the first `max_documents` documents whose verdict is `held_out`.
Memory: their texts and one batch of 1,000 rows. Shards behind the last document needed are not opened.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from tasks.evaluation.tables import SLICE_DOCUMENTS
from tasks.store.errors import StoreDamaged
from tasks.store.json import JSON
from tasks.store.paths import Store
from tasks.store.shard import iter_batches, read_table

HELD_OUT = "held_out"
"""The reason in dedup's verdicts (CONTRACT of the store's tables)."""


def read_slice(store: Store, shards: Iterable[JSON], max_documents: int) -> pa.Table:
    """The documents of a slice.

    Args:
        store: where the nodes are.
        shards: {"download": path, "dedup": path} in source order.
        max_documents: at most.

    Returns:
        `SLICE_DOCUMENTS`; no rows where nothing was held out.

    Raises:
        StoreDamaged: a node does not stand, or a verdict names a document that its download does not hold.
    """
    batches: list[pa.RecordBatch] = []
    left = max_documents
    for shard in shards:
        if left == 0:
            break
        verdicts = read_table(store, shard["dedup"], columns=["id", "reason"])
        ids = verdicts["id"].filter(pc.equal(verdicts["reason"], HELD_OUT))[:left]
        found = list(_texts(store, shard["download"], ids)) if len(ids) else []
        if sum(len(batch) for batch in found) != len(ids):
            raise StoreDamaged(
                store.address(shard["download"]),
                f"it lacks documents that {store.address(shard['dedup'])} holds out",
            )
        batches += found
        left -= len(ids)
    return pa.Table.from_batches(batches, SLICE_DOCUMENTS)


def _texts(store: Store, download: str, ids: pa.ChunkedArray) -> Iterator[pa.RecordBatch]:
    wanted = pa.array(ids.to_pylist(), pa.string())
    for batch in iter_batches(store, download, columns=["id", "text"]):
        chosen = batch.filter(pc.is_in(batch["id"], value_set=wanted))
        if len(chosen):
            yield pa.RecordBatch.from_arrays([chosen["id"], chosen["text"]], schema=SLICE_DOCUMENTS)
