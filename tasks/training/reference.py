"""The losses of a reference model on a packed shard: made once, read by every training that selects tokens.

A row a packed row, in order, with a loss in nats a token: entry t of a row is that of predicting token t from
those before; 0 where nothing is predicted (a row's first token; under the document mask a document's). The
whole shard is scored whatever the budget needs of it. Price: a forward pass of the reference a token, and
3 bytes of disk (3.03 on a tiny shard).
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.runtime.gpus import held_gpus
from tasks.runtime.launch import launch
from tasks.settings import Settings
from tasks.store.folders import local_folder
from tasks.store.json import JSON
from tasks.store.shard import NodeWriter
from tasks.training.config import REFERENCE_STAGE

LOSSES = "losses.parquet"
"""What the process leaves in its folder."""


def losses_schema(sequence_length: int) -> pa.Schema:
    """Of a shard's losses."""
    return pa.schema([("losses", pa.list_(pa.float32(), sequence_length))])


def build_reference(writer: NodeWriter) -> None:
    """Score one packed shard, in a process of its own, on a GPU where there is one.

    Raises:
        SourceError: the reference is not what was planned, or knows fewer tokens than the shard has.
        StoreDamaged: the shard does not stand.
        JobError: the process failed.
    """
    store, node = writer.store, writer.node
    work = _work(writer)
    model = local_folder(store, node.reads["model"], node.inputs["model"], weights=True, into=work / "model")
    job: JSON = {
        "model": str(model),
        "store": store.root,
        "packing": node.reads["packing"],
        "precision": node.config["precision"],
        "document_mask": node.config.get("document_mask", False),
    }
    with held_gpus(1) as gpu:
        result = _launched(writer, job, work, gpu)
    with pq.ParquetFile(work / LOSSES) as made:
        options: JSON = {"use_dictionary": False, "use_byte_stream_split": ["losses.list.element"]}
        with writer.parquet(made.schema_arrow, **options) as out:
            for group in range(made.num_row_groups):
                out.write_table(made.read_row_group(group))
    writer.tokens = result["tokens"]
    writer.details = {"mean_loss": result["mean_loss"]}
    writer.how |= {"device": result["device"]}
    shutil.rmtree(work)


def _launched(writer: NodeWriter, job: JSON, work: Path, env: Mapping[str, str]) -> JSON:
    return launch(
        "tasks.training.score",
        job,
        folder=work,
        env={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **env},
        on_event=lambda event: writer.progress(event["done"], event["total"], "sequences"),
    )


def _work(writer: NodeWriter) -> Path:
    path = f"work/{REFERENCE_STAGE}/{writer.node.fingerprint}"
    if writer.store.local is not None:
        work = writer.store.local_path(path)
    else:
        work = Path(Settings().scratch or tempfile.gettempdir()) / "dapt" / path
    work.mkdir(parents=True, exist_ok=True)
    return work
