"""Make a downloaded shard: stream the documents of a source shard into row groups of the store.

Memory: the documents of one row group (at most 1000 rows and about 32 MB of text, or one document) beside
what `tasks/download/stream.py` holds. Bytes of the Hub's files lie in `<store>/work/download/<fingerprint>/`
until the shard is made (beside a remote store in a temporary folder): a shard that failed or was killed goes
on from what it had fetched.
"""

import logging
import shutil

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.download.config import STAGE, ReadConfig, SourceShard
from tasks.download.stream import Tally, iter_documents, source_schema
from tasks.store.shard import NodeWriter

logger = logging.getLogger(__name__)

ROW_GROUP_ROWS = 1000
ROW_GROUP_BYTES = 32_000_000


class _RowGroups:
    """Batches gathered to row groups of a writer that takes tables."""

    def __init__(self, out: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._out, self._schema = out, schema
        self._held: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        if self._held and (
            self._rows + batch.num_rows > ROW_GROUP_ROWS or self._bytes + batch.nbytes > ROW_GROUP_BYTES
        ):
            self.flush()
        self._held.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes

    def flush(self) -> None:
        if self._rows:
            table = pa.Table.from_batches(self._held, self._schema)
            self._out.write_table(table, row_group_size=self._rows)
        self._held, self._rows, self._bytes = [], 0, 0


def build_download(writer: NodeWriter) -> None:
    """Write `data.parquet` of a download node: `id`, `source_id`, `text`, then the metadata columns.

    Raises:
        SourceError: a file is broken, changed, or has no such column; names it.
        TransientError: the network failed.
    """
    shard = msgspec.convert(writer.node.reads["shard"], SourceShard)
    config = ReadConfig.model_validate(writer.node.config)
    tally = Tally()
    text_bytes = 0
    store = writer.store
    work = store.local_path(f"work/{STAGE}/{writer.node.fingerprint}") if store.local is not None else None
    schema = source_schema(shard, config, work)
    with writer.parquet(schema) as out:
        groups = _RowGroups(out, schema)
        for batch in iter_documents(shard, config, tally, work):
            groups.add(batch)
            writer.documents_out += batch.num_rows
            text_bytes += pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0
            writer.progress(text_bytes, max(text_bytes, shard.text_bytes), "bytes")
        groups.flush()
    if work is not None:
        shutil.rmtree(work, ignore_errors=True)
    writer.documents_in = tally.documents_in
    writer.dropped.update(tally.dropped)
    writer.details = {
        "text_bytes": text_bytes,
        "documents_with_replaced_bytes": tally.replaced,
        "sources": shard.addresses,
    }
    logger.info(
        "%d documents, %.1f MB of text from %d file(s), first %s",
        writer.documents_out,
        text_bytes / 1e6,
        len(shard.files),
        shard.files[0].address,
    )
