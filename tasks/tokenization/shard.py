"""One shard's kept documents, to token ids.

In: the download's text and dedup's verdicts. Out: a row a document that dedup kept: its ids, or why it was
dropped, and the measures behind the verdict. Memory: the shard's verdicts and one batch of `BATCH_BYTES` of
text (about 120 bytes a token while HF encodes it), whatever the shard's size.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.store.errors import SourceError, StoreDamaged
from tasks.store.folders import local_folder
from tasks.store.json import JSON
from tasks.store.manifest import read_manifest
from tasks.store.shard import NodeWriter, iter_batches, read_table
from tasks.text.columns import text_buffers
from tasks.tokenization.config import SPECIAL_TOKENS, TokenizationConfig
from tasks.tokenization.encode import BATCH_BYTES, Encoder, load_encoder
from tasks.tokenization.layout import huggingface_files, portable_files
from tasks.tokenization.quality import Quality, judge, measure
from tasks.tokenization.train import train_byte_level

_READ_ROWS = 1000
_LAYOUT: JSON = {"use_dictionary": ["reason"], "use_byte_stream_split": ["input_ids.list.element"]}
"""As the packed shards: 1.15 bytes a token, against 1.41 with a dictionary of ids."""
_FAITHFUL_BYTES = 100_000
"""Text of each shard on which a converted tokenizer is compared with its original, and pieces with whole
documents."""


def schema(dtype: type[np.uint16] | type[np.uint32]) -> pa.Schema:
    """Of the data file."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("kept", pa.bool_()),
            ("reason", pa.string()),
            ("input_ids", pa.list_(pa.from_numpy_dtype(dtype))),
            ("num_tokens", pa.int64()),
            ("unknown_fraction", pa.float32()),
            ("byte_fallback_fraction", pa.float32()),
            ("bytes_per_token", pa.float32()),
            ("longest_run", pa.int64()),
        ]
    )


def build_tokenization(writer: NodeWriter) -> None:
    """Encode what dedup kept.

    Raises:
        SourceError: the tokenizer is not what it was when this was planned, or cannot be used.
        StoreDamaged: an input is not whole.
    """
    config = TokenizationConfig.model_validate(writer.node.config)
    with tempfile.TemporaryDirectory(prefix="dapt-tokenizer-") as folder:
        encoder = _encoder(writer, Path(folder))
    total, text_bytes, sampled = _num_kept(writer), 0, 0
    with writer.parquet(schema(encoder.dtype), **_LAYOUT) as out:
        for ids, text in _batches(writer):
            if sampled < _FAITHFUL_BYTES:
                sampled += _compare(encoder, text, _FAITHFUL_BYTES - sampled)
            batch, kept_bytes = _encoded(config, encoder, ids, text, out.schema)
            out.write_batch(batch)
            _count(writer, batch)
            text_bytes += kept_bytes
            writer.progress(writer.documents_in, total, "documents", tokens=writer.tokens)
    facts = encoder.facts
    writer.details = {"eos_id": facts.eos_id, "vocab_size": facts.vocab_size, "text_bytes": text_bytes}
    writer.how |= {"encoding": encoder.proven.how}


def build_tokenizer(writer: NodeWriter) -> None:
    """The tokenizer that models are saved and measured with: trained here, or made of a given one's files.

    Raises:
        SourceError: nothing was kept to train on, or the given one is not what was planned.
        StoreDamaged: an input is not whole.
    """
    if "tokenizer" not in writer.node.inputs:
        _train(writer)
        return
    with tempfile.TemporaryDirectory(prefix="dapt-tokenizer-") as folder:
        encoder = _encoder(writer, Path(folder))
        for name, data in portable_files(encoder).items():
            writer.file(name, data)
    writer.details = {"vocab_size": encoder.facts.vocab_size, "eos_id": encoder.facts.eos_id}
    writer.how |= {"tokenizer": writer.node.reads["tokenizer"]}


def _train(writer: NodeWriter) -> None:
    """Train on what dedup kept of a shard."""
    size = TokenizationConfig.model_validate(writer.node.config).train_vocab_size

    def texts() -> Iterator[str]:
        for _, text in _batches(writer):
            writer.documents_in += len(text)
            yield from text.to_pylist()

    tokenizer = train_byte_level(texts(), size)
    writer.documents_out = writer.documents_in
    unk, bos, eos, pad = SPECIAL_TOKENS
    special = {"unk_token": unk, "bos_token": bos, "eos_token": eos, "pad_token": pad}
    for name, data in huggingface_files(tokenizer, special).items():
        writer.file(name, data)
    writer.details = {"vocab_size": tokenizer.get_vocab_size(), "eos_id": tokenizer.token_to_id(eos)}


def _encoded(
    config: TokenizationConfig, encoder: Encoder, ids: pa.Array, text: pa.Array, wanted: pa.Schema
) -> tuple[pa.RecordBatch, int]:
    """The rows of a batch of documents, and the bytes of text of those kept."""
    offsets, _ = text_buffers(text)
    text_bytes = np.diff(offsets)
    flat, lengths = encoder.encode(text)
    quality = measure(
        flat,
        lengths,
        text_bytes,
        eos_id=encoder.facts.eos_id,
        unknown_id=encoder.unknown_id,
        byte_ids=encoder.byte_ids,
    )
    reasons = judge(
        quality,
        max_unknown_fraction=config.max_unknown_fraction,
        max_byte_fallback_fraction=config.max_byte_fallback_fraction,
        min_bytes_per_token=config.min_bytes_per_token,
        max_run_fraction=config.max_run_fraction,
    )
    kept = np.array([reason is None for reason in reasons], np.bool_)
    arrays = [
        ids,
        pa.array(kept),
        pa.array(reasons, pa.string()),
        _lists(flat, lengths, kept),
        *_columns(quality),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted), int(text_bytes[kept].sum())


def _lists(
    flat: NDArray[np.uint16 | np.uint32], lengths: NDArray[np.int64], kept: NDArray[np.bool_]
) -> pa.ListArray:
    """Ids a document, null where it was dropped."""
    sizes = np.where(kept, lengths, 0)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(flat[np.repeat(kept, lengths)]), mask=pa.array(~kept)
    )


def _columns(quality: Quality) -> list[pa.Array]:
    return [
        pa.array(values)
        for values in (
            quality.num_tokens,
            quality.unknown_fraction,
            quality.byte_fallback_fraction,
            quality.bytes_per_token,
            quality.longest_run,
        )
    ]


def _count(writer: NodeWriter, batch: pa.RecordBatch) -> None:
    writer.documents_in += batch.num_rows
    writer.documents_out += batch["kept"].true_count
    for entry in batch["reason"].drop_null().value_counts().to_pylist():
        writer.dropped[entry["values"]] += entry["counts"]
    writer.tokens += len(batch["input_ids"].flatten())


def _num_kept(writer: NodeWriter) -> int:
    manifest = read_manifest(writer.store, writer.node.reads["dedup"])
    return manifest.documents_out if manifest else 0


def _batches(writer: NodeWriter) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Ids and texts of what dedup kept, in order, at most `BATCH_BYTES` of text (or one document) at once."""
    store, reads = writer.store, writer.node.reads
    verdicts = read_table(store, reads["dedup"], columns=["id", "kept"])
    wanted = verdicts["id"].filter(verdicts["kept"]).combine_chunks()
    at = 0
    for batch in iter_batches(store, reads["download"], columns=["id", "text"], rows=_READ_ROWS):
        # Both sides are in the download's order, so this batch's kept ids are among the next so many.
        hits = batch.filter(pc.is_in(batch["id"], value_set=wanted.slice(at, batch.num_rows)))
        at += hits.num_rows
        offsets, _ = text_buffers(hits["text"])
        begin = 0
        while begin < hits.num_rows:
            end = int(np.searchsorted(offsets, offsets[begin] + BATCH_BYTES, side="right")) - 1
            end = min(max(end, begin + 1), hits.num_rows)
            yield hits["id"].slice(begin, end - begin), hits["text"].slice(begin, end - begin)
            begin = end
    if at != len(wanted):
        raise StoreDamaged(
            store.address(reads["dedup"]),
            f"it keeps {len(wanted)} documents, {at} of them are in the download",
        )


def _compare(encoder: Encoder, text: pa.Array, limit: int) -> int:
    """Compare on the first documents, see `Encoder.require_faithful`; the bytes compared."""
    offsets, _ = text_buffers(text)
    fitting = int(np.searchsorted(offsets, limit, side="right")) - 1
    encoder.require_faithful(text.slice(0, fitting))
    return int(offsets[fitting]) or limit


def _encoder(writer: NodeWriter, into: Path) -> Encoder:
    """The node's tokenizer, checked to be the one that was planned with."""
    inputs = writer.node.inputs
    folder = local_folder(
        writer.store, writer.node.reads["tokenizer"], inputs["tokenizer"], weights=False, into=into
    )
    encoder = load_encoder(folder)
    if str(encoder.facts.eos_id) != inputs["eos"]:
        raise SourceError(
            f"{encoder.folder} closes documents with id {encoder.facts.eos_id}, {inputs['eos']} was planned; "
            "plan again"
        )
    return encoder
