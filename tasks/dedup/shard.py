"""Two nodes of a shard: signatures of what the filter kept, then verdicts in source order.

Signatures need the shard alone and are made side by side; memory is bounded by a batch of a thousand
documents. Verdicts need the verdicts of every shard before (the index, `tasks.dedup.index`, which states how
much memory it takes at most).

The order of judgement: words in common with a benchmark (`contaminated`, where the recipe drops them), the
same normalised text as a kept document (`exact`), a signature that agrees with a kept document's in the
threshold's share of slots (`near`), then the held-out slice is cut (`held_out`). Held-out documents are kept
for the index: a later copy of one is a duplicate and never trained on. Contaminated ones do not enter it: a
copy with the benchmark's words is contaminated itself, and a near copy without them may stay.
"""

import logging
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.dedup.config import SignatureConfig, VerdictConfig
from tasks.dedup.decontaminate import FOUND
from tasks.dedup.documents import kept_documents
from tasks.dedup.exact import HASH_BYTES, buffers, exact_hashes, text_hashes
from tasks.dedup.held_out import held_out
from tasks.dedup.index import (
    BATCH_ROWS,
    HELD_OUT,
    INDEXES,
    Index,
    columns,
    index_behind,
    signed_shape,
)
from tasks.dedup.lsh import KEPT
from tasks.dedup.minhash import EMPTY, signatures
from tasks.store.shard import NodeWriter, iter_batches, read_table

logger = logging.getLogger(__name__)

REASONS = pa.array([None, "exact", "near", HELD_OUT, "contaminated"], pa.string())
"""By verdict: `lsh.KEPT`, `lsh.EXACT`, `lsh.NEAR`, held out, and contaminated."""

_HELD_OUT_VERDICT, _CONTAMINATED_VERDICT = 3, 4

VERDICTS = pa.schema(
    [("id", pa.string()), ("kept", pa.bool_()), ("reason", pa.string()), ("duplicate_of", pa.string())]
)
LOOKED_AT = VERDICTS.append(pa.field("contaminated_by", pa.string()))
"""Of verdicts where the recipe decontaminates: the item ("mmlu_anatomy:12") of a document that is."""


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
    schema = signature_schema(config.num_perm)
    text_bytes = 0
    # Hash values do not repeat, so a dictionary is lost on them; their high bytes are often zero.
    split = {"signature.list.element": "BYTE_STREAM_SPLIT"}
    with writer.parquet(schema, use_dictionary=False, column_encoding=split) as out:
        for batch in kept_documents(writer):
            out.write_batch(_sign(batch, config, schema))
            text_bytes += batch["text"].nbytes
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
    looked_at = config.decontaminate != "off"
    marks = read_table(store, node.reads["contamination"]) if looked_at else FOUND.empty_table()
    by_benchmark: Counter[str] = Counter()
    with writer.parquet(LOOKED_AT if looked_at else VERDICTS) as out:
        for batch in iter_batches(store, node.reads["signatures"], rows=BATCH_ROWS):
            found = pc.index_in(batch["id"], value_set=marks["id"])
            verdicts, duplicate_of, without_words = _judge(
                index, batch, config, found.is_valid().to_numpy(False)
            )
            kept = verdicts == KEPT
            verdict = [batch["id"], pa.array(kept), REASONS.take(pa.array(verdicts)), duplicate_of]
            if looked_at:
                verdict.append(marks["item"].take(found).combine_chunks())
                counted = found.filter(pa.array(kept | (verdicts == _CONTAMINATED_VERDICT))).drop_null()
                by_benchmark.update(marks["benchmark"].take(counted).to_pylist())
            out.write_batch(pa.record_batch(verdict, schema=out.schema))
            total += len(batch)
            empty += without_words
            for number, count in zip(*np.unique(verdicts, return_counts=True), strict=True):
                if number != KEPT:
                    writer.dropped[REASONS[int(number)].as_py()] += int(count)
            writer.documents_out += int(kept.sum())
            writer.progress(total, rows, "documents", index_documents=index.num_docs)
    writer.documents_in = total
    writer.details = {
        "without_words": empty,
        "index_documents": index.num_docs,
        "index_bytes": index.memory_bytes,
        "index_file_bytes": index.file_bytes,
    }
    if looked_at:
        writer.details["contaminated"] = dict(sorted(by_benchmark.items()))
        told = ", ".join(f"{name} {count}" for name, count in by_benchmark.most_common()) or "none"
        logger.info("documents that share words with a benchmark (%s): %s", config.decontaminate, told)
    INDEXES.put(store, node.fingerprint, index)


def _judge(
    index: Index, batch: pa.RecordBatch, config: VerdictConfig, marked: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], pa.Array, int]:
    """The verdicts on signed documents, what they are duplicates of, and how many have no words.

    Args:
        index: of all kept before them; takes in those kept.
        batch: of a signature node.
        config: of the verdicts.
        marked: (batch,) whether each shares words with a benchmark.
    """
    out = marked if config.decontaminate == "drop" else np.zeros(len(batch), np.bool_)
    left = batch.filter(pa.array(~out)) if out.any() else batch
    slots, exact, ids = columns(left)
    found = index.resolve(slots, exact, ids)
    judged = found.verdicts.copy()
    aside = held_out(left["text_hash"].to_numpy(), config.held_out_fraction)
    judged[aside & (judged == KEPT)] = _HELD_OUT_VERDICT
    verdicts = np.full(len(batch), _CONTAMINATED_VERDICT, np.uint8)
    verdicts[~out] = judged
    duplicate_of = found.duplicate_of.take(pa.array(np.cumsum(~out) - 1, mask=out))
    return verdicts, duplicate_of, int((slots == EMPTY).all(axis=1).sum())
