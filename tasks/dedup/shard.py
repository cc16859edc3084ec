"""The two nodes of a shard: signatures of what the filter kept, then verdicts in source order.

Signatures need the shard alone and are made side by side; memory is bounded by a batch of a thousand
documents. Verdicts need the verdicts of every shard before (the index, `tasks.dedup.index`, which states how
much memory it takes at most).

The order of judgement: the same normalised text as a kept document (`exact`), a signature that agrees with a
kept document's in the threshold's share of slots (`near`), then the held-out slice is cut (`held_out`).
Held-out documents are kept for the index: a later copy of one is a duplicate and never trained on.
"""

import numpy as np
import pyarrow as pa

from tasks.dedup.config import SignatureConfig, VerdictConfig
from tasks.dedup.exact import HASH_BYTES, buffers, exact_hashes, text_hashes
from tasks.dedup.held_out import held_out
from tasks.dedup.index import BATCH_ROWS, HELD_OUT, INDEXES, columns, index_behind, signed_shape
from tasks.dedup.lsh import KEPT
from tasks.dedup.minhash import EMPTY, signatures
from tasks.store.shard import NodeWriter, iter_batches, read_table

REASONS = pa.array([None, "exact", "near", HELD_OUT], pa.string())
"""By verdict: `lsh.KEPT`, `lsh.EXACT`, `lsh.NEAR`, and held out."""

_HELD_OUT_VERDICT = 3

VERDICTS = pa.schema(
    [("id", pa.string()), ("kept", pa.bool_()), ("reason", pa.string()), ("duplicate_of", pa.string())]
)


def signature_schema(num_perm: int) -> pa.Schema:
    """Columns of a signature node."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("exact_hash", pa.binary(HASH_BYTES)),
            ("text_hash", pa.uint64()),
            ("signature", pa.list_(pa.uint32(), num_perm)),
        ]
    )


def build_signatures(writer: NodeWriter) -> None:
    """Sign the documents of a shard that the filter kept, in order."""
    config = SignatureConfig.model_validate(writer.node.config)
    store, reads = writer.store, writer.node.reads
    verdicts = read_table(store, reads["filtering"], columns=["id", "kept"]).combine_chunks()
    schema = signature_schema(config.num_perm)
    at, text_bytes = 0, 0
    # Hash values do not repeat, so a dictionary is lost on them; their high bytes are often zero.
    split = {"signature.list.element": "BYTE_STREAM_SPLIT"}
    with writer.parquet(schema, use_dictionary=False, column_encoding=split) as out:
        for batch in iter_batches(store, reads["download"], columns=["id", "text"]):
            judged = verdicts.slice(at, len(batch))
            at += len(batch)
            assert judged["id"].combine_chunks().equals(batch["id"]), "a verdict a document, in order"
            signed = _sign(batch.filter(judged["kept"].combine_chunks()), config, schema)
            out.write_batch(signed)
            writer.documents_in += len(signed)
            text_bytes += batch["text"].nbytes
            writer.progress(at, len(verdicts), "documents")
    assert at == len(verdicts), "a verdict a document"
    writer.documents_out = writer.documents_in
    writer.details = {"text_bytes": text_bytes}


def _sign(batch: pa.RecordBatch, config: SignatureConfig, schema: pa.Schema) -> pa.RecordBatch:
    offsets, data = buffers(batch["text"])
    exact = exact_hashes(offsets, data)
    slots = signatures(offsets, data, num_perm=config.num_perm, ngram=config.ngram)
    return pa.record_batch(
        [
            batch["id"],
            pa.Array.from_buffers(pa.binary(HASH_BYTES), len(exact), [None, pa.py_buffer(exact)]),
            pa.array(text_hashes(exact)),
            pa.FixedSizeListArray.from_arrays(
                pa.array(slots.reshape(-1)), type=schema.field("signature").type
            ),
        ],
        schema=schema,
    )


def build_verdicts(writer: NodeWriter) -> None:
    """Judge the signed documents of a shard against all kept before them."""
    config = VerdictConfig.model_validate(writer.node.config)
    store, node = writer.store, writer.node
    total, empty = 0, 0
    rows, num_perm = signed_shape(store, node.reads["signatures"])
    index = index_behind(store, node.inputs.get("predecessor"), num_perm=num_perm, matching=config)
    with writer.parquet(VERDICTS) as out:
        for batch in iter_batches(store, node.reads["signatures"], rows=BATCH_ROWS):
            slots, exact, ids = columns(batch)
            found = index.resolve(slots, exact, ids)
            verdicts = found.verdicts.copy()
            aside = held_out(batch["text_hash"].to_numpy(), config.held_out_fraction)
            verdicts[aside & (verdicts == KEPT)] = _HELD_OUT_VERDICT
            kept = verdicts == KEPT
            out.write_batch(
                pa.record_batch(
                    [ids, pa.array(kept), REASONS.take(pa.array(verdicts)), found.duplicate_of],
                    schema=VERDICTS,
                )
            )
            total += len(batch)
            empty += int((slots == EMPTY).all(axis=1).sum())
            for verdict, count in zip(*np.unique(verdicts, return_counts=True), strict=True):
                if verdict != KEPT:
                    writer.dropped[REASONS[int(verdict)].as_py()] += int(count)
            writer.documents_out += int(kept.sum())
            writer.progress(total, rows, "documents", index_documents=index.num_docs)
    writer.documents_in = total
    writer.details = {
        "without_words": empty,
        "index_documents": index.num_docs,
        "index_bytes": index.memory_bytes,
        "index_file_bytes": index.file_bytes,
    }
    INDEXES.put(store, node.fingerprint, index)
