"""The documents of a shard that the filter kept: what signatures and contamination are made of."""

from collections.abc import Iterator

import pyarrow as pa

from tasks.store.shard import NodeWriter, iter_batches, read_table


def kept_documents(writer: NodeWriter) -> Iterator[pa.RecordBatch]:
    """`id` and `text` in order, at most a thousand documents at a time, counted and told on the way.

    Args:
        writer: of a node that reads `download` and `filtering`.
    """
    store, reads = writer.store, writer.node.reads
    verdicts = read_table(store, reads["filtering"], columns=["id", "kept"]).combine_chunks()
    at = 0
    for batch in iter_batches(store, reads["download"], columns=["id", "text"]):
        judged = verdicts.slice(at, len(batch))
        at += len(batch)
        assert judged["id"].combine_chunks().equals(batch["id"]), "a verdict a document, in order"
        kept = batch.filter(judged["kept"].combine_chunks())
        yield kept
        writer.documents_in += len(kept)
        writer.progress(at, len(verdicts), "documents")
    assert at == len(verdicts), "a verdict a document"
    writer.documents_out = writer.documents_in
