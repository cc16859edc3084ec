"""The verdicts of one shard: the download's documents in, a row a document out, in order; no text is copied.

Memory: one batch of the download (1,000 documents, bounded by its row groups), its metrics, and what
`tasks.filtering.repetition` states for the longest document. It does not grow with the shard.
"""

import logging
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.filtering.config import FilteringConfig
from tasks.filtering.rules import judge_batch, verdict_schema
from tasks.store.manifest import read_manifest
from tasks.store.shard import NodeWriter, iter_batches
from tasks.text.columns import text_buffers

logger = logging.getLogger(__name__)


def build_filtering(writer: NodeWriter) -> None:
    """Judge every document of the download this node reads.

    Raises:
        StoreDamaged: the download is not what its manifest says.
    """
    config = FilteringConfig.model_validate(writer.node.config)
    source = writer.node.reads["download"]
    manifest = read_manifest(writer.store, source)
    total = manifest.documents_out if manifest else 0
    bytes_in = bytes_out = 0
    dropped: Counter[str] = Counter()
    with writer.parquet(verdict_schema(config)) as out:
        for batch in iter_batches(writer.store, source, columns=["id", "text"]):
            verdicts = judge_batch(batch, config)
            out.write_batch(verdicts)
            kept = verdicts.column("kept")
            sizes = pa.array(np.diff(text_buffers(batch.column("text"))[0]))
            bytes_in += pc.sum(sizes, min_count=0).as_py()
            bytes_out += pc.sum(sizes.filter(kept), min_count=0).as_py()
            writer.documents_in += len(batch)
            writer.documents_out += kept.true_count
            for reason in pc.value_counts(verdicts.column("reason").drop_null()):
                dropped[reason["values"].as_py()] += reason["counts"].as_py()
            writer.progress(writer.documents_in, total, "documents")
    writer.dropped = dropped
    writer.details = {"text_bytes_in": bytes_in, "text_bytes_out": bytes_out}
    logger.info(
        "shard %s: %d of %d documents kept, %.1f of %.1f MB text",
        writer.shard, writer.documents_out, writer.documents_in, bytes_out / 1e6, bytes_in / 1e6,
    )  # fmt: skip
