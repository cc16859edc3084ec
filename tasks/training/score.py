"""`python -m tasks.training.score --job job.json`: a reference's loss of each token of a packed shard.

Memory: the model, a row group of the shard, and the activations of `_TOKENS` tokens.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel

from tasks.runtime.job import Job
from tasks.runtime.logs import log_to_output
from tasks.store.errors import DaptError, SourceError
from tasks.store.paths import Store
from tasks.store.shard import open_node_file
from tasks.training.document import document_places, given_of, keep_documents_apart
from tasks.training.loss import chunk_loss
from tasks.training.model import load_model
from tasks.training.reference import LOSSES, losses_schema
from tasks.training.selective import token_losses

_TOKENS = {"cpu": 1 << 12, "cuda": 1 << 16}
"""Of a forward pass."""
_EMIT_S = 1.0


def score(job: Job) -> None:
    """Score what the job names."""
    spec = job.spec
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(Path(spec["model"]))
    model.config.use_cache = False
    if spec["document_mask"]:
        keep_documents_apart(model)
    chunked = chunk_loss(model)
    model.to(device, torch.bfloat16 if spec["precision"] == "bf16" else torch.float32).eval()
    total, told, done = 0.0, time.monotonic(), 0
    with open_node_file(Store(spec["store"]), spec["packing"]) as file, pq.ParquetFile(file) as packed:
        length = packed.schema_arrow.field("input_ids").type.list_size
        with pq.ParquetWriter(job.folder / LOSSES, losses_schema(length)) as out:
            for group in range(packed.num_row_groups):
                table = packed.read_row_group(group, columns=["input_ids", "doc_starts"])
                losses = _group_losses(
                    model, table, device, chunked=chunked, document_mask=spec["document_mask"]
                )
                values = pa.array(losses.reshape(-1))
                out.write_table(
                    pa.table([pa.FixedSizeListArray.from_arrays(values, length)], schema=out.schema)
                )
                total, done = total + float(losses.sum(dtype=np.float64)), done + len(losses)
                if time.monotonic() - told > _EMIT_S:
                    told = time.monotonic()
                    job.emit({"done": done, "total": packed.metadata.num_rows})
    tokens = done * length
    job.write_result({"tokens": tokens, "mean_loss": total / max(1, tokens), "device": device.type})


def _group_losses(
    model: PreTrainedModel, table: pa.Table, device: torch.device, *, chunked: bool, document_mask: bool
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Losses of a row group, (rows, length)."""
    column = table["input_ids"].combine_chunks()
    length = column.type.list_size
    rows = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, length).astype(np.int64)
    if rows.size and int(rows.max()) >= (known := model.get_input_embeddings().weight.shape[0]):
        raise SourceError(
            f"the corpus has token id {rows.max()}, the reference's embedding {known} rows; "
            "training.selective.reference must have the tokenizer of the base"
        )
    places = None
    if document_mask:
        starts = [np.asarray(one, np.int32) for one in table["doc_starts"].to_pylist()]
        places = document_places(starts, length)
    at_once = max(1, _TOKENS[device.type] // length)
    found = []
    for start in range(0, len(rows), at_once):
        part = slice(start, start + at_once)
        at = torch.from_numpy(places[part]).to(device) if places is not None else None
        given = given_of(torch.from_numpy(rows[part]).to(device), at)
        found.append(token_losses(model, given, chunked=chunked).cpu().numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    log_to_output()
    try:
        score(Job.from_argv())
    except DaptError as err:
        sys.exit(f"error: {err}")
