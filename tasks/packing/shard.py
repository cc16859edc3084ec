"""One tokenized shard to packed rows in Parquet, and the list of rows that makes a corpus.

Layout: `fixed_size_list<uint16|uint32>`, zstd, no dictionary, BYTE_STREAM_SPLIT: 1.15 bytes a token and
readable by every tool (plain: 4.01, as Parquet stores 16 bits as 32). Row groups of `ROWS_PER_GROUP` make a
random row cheap.
Memory: one batch of documents and one row group, whatever the shard's size.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.packing.config import PackingConfig
from tasks.packing.sequences import Packer, Rows
from tasks.store.errors import StoreDamaged
from tasks.store.json import JSON
from tasks.store.manifest import read_manifest
from tasks.store.shard import NodeWriter, iter_batches

ROWS_PER_GROUP = 100
"""Of 2,000 tokens (bytes a token, a random row): 50: 1.19, 1.5 ms; 100: 1.15, 1.9; 200: 1.14, 3.4."""
_READ_ROWS = 500
LAYOUT: JSON = {"use_dictionary": False, "use_byte_stream_split": ["input_ids.list.element"]}


def schema(sequence_length: int, dtype: type[np.uint16] | type[np.uint32]) -> pa.Schema:
    """Of a packed shard."""
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.from_numpy_dtype(dtype), sequence_length)),
            ("doc_starts", pa.list_(pa.int32())),
            ("doc_ids", pa.list_(pa.string())),
        ]
    )


def build_packing(writer: NodeWriter) -> None:
    """Pack what tokenization kept of one shard.

    A document of which no token reaches a row is dropped as `leftover`; one that is cut by the end of the
    last row counts as packed, its remaining tokens as leftover.

    Raises:
        StoreDamaged: the tokenized shard is not whole.
    """
    store, path = writer.store, writer.node.reads["tokenization"]
    length = PackingConfig.model_validate(writer.node.config).sequence_length
    manifest = read_manifest(store, path)
    if manifest is None:
        raise StoreDamaged(store.address(path), "it does not stand")
    dtype = np.uint16 if manifest.details["vocab_size"] <= 1 << 16 else np.uint32
    packer = Packer(
        sequence_length=length,
        eos_id=manifest.details["eos_id"],
        dtype=dtype,
        rows_at_once=ROWS_PER_GROUP,
    )
    held = pa.array([], pa.string())
    with writer.parquet(schema(length, dtype), **LAYOUT) as out:
        for batch in iter_batches(store, path, columns=["id", "kept", "input_ids"], rows=_READ_ROWS):
            # What was dropped has no ids (null), so `flatten` gives those of the kept without a copy.
            ids, lengths = batch["input_ids"].flatten(), batch["input_ids"].value_lengths().drop_null()
            writer.documents_in += len(lengths)
            held = pa.concat_arrays([held, batch["id"].filter(batch["kept"])])
            rows = packer.add(ids.to_numpy(), lengths.to_numpy().astype(np.int64))
            held = write_rows(writer, out, rows, held, packer)
            writer.progress(writer.documents_in, manifest.documents_out, "documents", tokens=writer.tokens)
        write_rows(writer, out, packer.finish(), held, packer)
    writer.dropped.update(leftover=packer.leftover_documents)
    writer.documents_out = writer.documents_in - packer.leftover_documents
    writer.details = {
        "leftover_tokens": packer.leftover_tokens,
        "sequences": writer.tokens // length,
        "dtype": np.dtype(dtype).name,
    }


def build_corpus(writer: NodeWriter) -> None:
    """Write down which rows of which shards are the corpus; it holds no data of its own."""
    reads, sequences = writer.node.reads, writer.node.config["sequences"]
    assert sum(shard["rows"] for shard in reads["shards"]) == sequences, (
        "the shards hold other rows than asked for"
    )
    writer.tokens = sequences * reads["sequence_length"]
    writer.corpus = {
        "budget": reads["budget"],
        "sequence_length": reads["sequence_length"],
        "sequences": sequences,
        "shards": reads["shards"],
    }


def write_rows(
    writer: NodeWriter, out: pq.ParquetWriter, rows: Rows, held: pa.StringArray, packer: Packer
) -> pa.StringArray:
    """Write rows; the ids of the documents still held come back.

    `held` are the ids of the last documents added, as many as were held before plus those just added.
    """
    num_rows, length = rows.ids.shape
    if num_rows == 0:
        return held
    first_held = packer.num_documents - len(held)
    table = pa.Table.from_arrays(
        [
            pa.FixedSizeListArray.from_arrays(pa.array(rows.ids.reshape(-1)), length),
            pa.ListArray.from_arrays(pa.array(rows.starts_offsets.astype(np.int32)), pa.array(rows.starts)),
            _documents(rows, held, first_held),
        ],
        schema=out.schema,
    )
    out.write_table(table, row_group_size=ROWS_PER_GROUP)
    writer.tokens += num_rows * length
    return held.slice(int(rows.last_document[-1]) - first_held)


def _documents(rows: Rows, held: pa.StringArray, first_held: int) -> pa.ListArray:
    """The ids of the documents of each row: the one that runs on into it, if any, then one a start."""
    counts = rows.last_document - rows.first_document + 1
    offsets = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    numbers = within + np.repeat(rows.first_document - first_held, counts)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), held.take(pa.array(numbers)))
