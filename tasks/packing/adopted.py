"""Rows of token ids that somebody else made, as a packed shard.

In: record batches of `id` and `input_ids`, a source row each. Two layouts. *Documents* of any length are cut
at every EOS, closed with exactly one and packed as our own: what is empty between two EOS goes, as surplus.
*Rows* that have the sequence's length are packed already and stay as they are, bit for bit. A document is
named by its row, `<digest>-<row>`, and where it does not begin it by the place too: `<digest>-<row>.<place>`.

Tokens are conserved: those read + EOS added = packed + leftover + surplus EOS.
Memory: one batch and two row groups.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.packing.config import AdoptedConfig, PackingConfig
from tasks.packing.sequences import Ids, Packer
from tasks.packing.shard import LAYOUT, ROWS_PER_GROUP, schema, write_rows
from tasks.store.shard import NodeWriter


@dataclass(slots=True)
class _Tally:
    """What was met on the way."""

    rows: int = 0
    tokens: int = 0
    eos_added: int = 0
    surplus_eos: int = 0
    leftover: int = 0


@dataclass(frozen=True, slots=True)
class Documents:
    """What rows hold, cut at every EOS."""

    ids: Ids
    """(num_tokens,) of all documents in order, no EOS."""
    lengths: NDArray[np.int64]
    """(num_docs,) at least 1 each."""
    rows: NDArray[np.int64]
    """(num_docs,) the row each begins in."""
    places: NDArray[np.int64]
    """(num_docs,) and at which token of it."""
    eos_added: int
    """Documents that no EOS closed."""
    surplus_eos: int
    """EOS that closed nothing."""


def cut_at_eos(ids: Ids, lengths: NDArray[np.int64], eos_id: int) -> Documents:
    """Cut rows at every EOS; a row's end ends a document too.

    Args:
        ids: (num_tokens,) of all rows in order.
        lengths: (num_rows,) tokens a row.
        eos_id: closes documents.
    """
    ends = np.cumsum(lengths)
    is_eos = ids == eos_id
    # Every piece ends before an EOS or at the end of its row; pieces of no tokens are dropped below.
    stops = np.sort(np.concatenate([np.flatnonzero(is_eos), ends]), kind="stable")
    begins = np.concatenate([[0], stops[:-1]]).astype(np.int64)
    begins += np.append(is_eos, False)[begins] if len(ids) else 0
    if len(stops):
        begins[0] = 0
    sizes = stops - begins
    begins, sizes = begins[sizes > 0], sizes[sizes > 0]
    rows = np.searchsorted(ends, begins, side="right")
    stops = begins + sizes
    closed = int(np.append(is_eos, False)[stops[stops < ends[rows]]].sum())
    return Documents(
        ids=ids[~is_eos],
        lengths=sizes,
        rows=rows,
        places=begins - (ends - lengths)[rows],
        eos_added=len(sizes) - closed,
        surplus_eos=int(is_eos.sum()) - closed,
    )


def pack_adopted(writer: NodeWriter, batches: Iterable[pa.RecordBatch], *, total_rows: int = 0) -> None:
    """Write a packed shard of adopted token ids.

    Args:
        writer: of an `adopted_node`, whose `reads` has `eos_id` and `vocab_size`.
        batches: `id` and `input_ids`; null rows are counted as `null`, those without a token as `empty`.
        total_rows: for progress; 0: not known.
    """
    config = dict(writer.node.config)
    adopted = AdoptedConfig.model_validate(config.pop("adopted"))
    length = PackingConfig.model_validate(config).sequence_length
    eos_id, vocab_size = writer.node.reads["eos_id"], writer.node.reads["vocab_size"]
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    tally = _Tally()

    def told() -> Iterable[pa.RecordBatch]:
        for batch in batches:
            tally.rows += batch.num_rows
            tally.tokens += len(batch["input_ids"].flatten())
            yield batch
            writer.progress(tally.rows, max(tally.rows, total_rows), "rows", tokens=writer.tokens)

    with writer.parquet(schema(length, dtype), **LAYOUT) as out:
        if adopted.layout == "rows":
            _take_rows(writer, out, told(), tally, length=length, eos_id=eos_id)
        else:
            packer = Packer(sequence_length=length, eos_id=eos_id, dtype=dtype, rows_at_once=ROWS_PER_GROUP)
            _pack_documents(writer, out, told(), tally, packer)
    assert tally.tokens + tally.eos_added == writer.tokens + tally.leftover + tally.surplus_eos, (
        f"tokens are not conserved: {tally}, {writer.tokens} packed"
    )
    writer.details = {
        "rows_in": tally.rows,
        "tokens_in": tally.tokens,
        "eos_added": tally.eos_added,
        "surplus_eos": tally.surplus_eos,
        "leftover_tokens": tally.leftover,
        "sequences": writer.tokens // length,
        "dtype": np.dtype(dtype).name,
        "eos_id": eos_id,
        "vocab_size": vocab_size,
    }


def _pack_documents(
    writer: NodeWriter,
    out: pq.ParquetWriter,
    batches: Iterable[pa.RecordBatch],
    tally: _Tally,
    packer: Packer,
) -> None:
    held = pa.array([], pa.string())
    for batch in batches:
        lists = batch["input_ids"]
        null = lists.null_count
        ids = lists.flatten().to_numpy(zero_copy_only=False)
        lengths = np.diff(lists.offsets.to_numpy()).astype(np.int64)
        found = cut_at_eos(ids, lengths, packer.eos_id)
        empty = len(lists) - null - len(np.unique(found.rows))
        tally.eos_added += found.eos_added
        tally.surplus_eos += found.surplus_eos
        writer.documents_in += len(found.lengths) + null + empty
        writer.dropped.update(null=null, empty=empty)
        held = pa.concat_arrays([held, _names(batch["id"], found.rows, found.places)])
        held = write_rows(writer, out, packer.add(found.ids, found.lengths), held, packer)
    write_rows(writer, out, packer.finish(), held, packer)
    tally.leftover = packer.leftover_tokens
    writer.dropped.update(leftover=packer.leftover_documents)
    writer.documents_out = packer.num_documents - packer.leftover_documents


def _take_rows(
    writer: NodeWriter,
    out: pq.ParquetWriter,
    batches: Iterable[pa.RecordBatch],
    tally: _Tally,
    *,
    length: int,
    eos_id: int,
) -> None:
    pending = out.schema.empty_table()
    for batch in batches:
        lengths = np.diff(batch["input_ids"].offsets.to_numpy())
        whole = batch.filter(pa.array(lengths == length))
        null = batch["input_ids"].null_count
        tally.leftover += int(lengths[lengths != length].sum())
        writer.documents_in += batch.num_rows
        writer.documents_out += whole.num_rows
        writer.dropped.update(null=null, leftover=batch.num_rows - whole.num_rows - null)
        writer.tokens += whole.num_rows * length
        pending = pa.concat_tables([pending, _as_packed(whole, length, eos_id, out.schema)])
        ready = len(pending) - len(pending) % ROWS_PER_GROUP
        if ready:
            out.write_table(pending.slice(0, ready), row_group_size=ROWS_PER_GROUP)
            pending = pending.slice(ready)
    if len(pending):
        out.write_table(pending, row_group_size=ROWS_PER_GROUP)


def _as_packed(batch: pa.RecordBatch, length: int, eos_id: int, wanted: pa.Schema) -> pa.Table:
    """Rows as they are; a document begins with each row, and behind each EOS that another token follows."""
    flat = batch["input_ids"].flatten()
    ids = flat.to_numpy(zero_copy_only=False).reshape(-1, length)
    begins = np.ones(ids.shape, np.bool_)
    begins[:, 1:] = (ids[:, :-1] == eos_id) & (ids[:, 1:] != eos_id)
    rows, places = np.nonzero(begins)
    offsets = pa.array(np.concatenate([[0], np.cumsum(begins.sum(axis=1))]).astype(np.int32))
    columns = [
        pa.FixedSizeListArray.from_arrays(flat, length),
        pa.ListArray.from_arrays(offsets, pa.array(places.astype(np.int32))),
        pa.ListArray.from_arrays(offsets, _names(batch["id"], rows, places)),
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


def _names(ids: pa.Array, rows: NDArray[np.int64], places: NDArray[np.int64]) -> pa.StringArray:
    """What documents are called, by the row and the place they begin at."""
    names = ids.take(pa.array(rows)).to_pylist()
    return pa.array(
        [f"{name}.{place}" if place else name for name, place in zip(names, places.tolist(), strict=True)],
        pa.string(),
    )
