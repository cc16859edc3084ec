"""An evaluation's node: hand the job to a process of its own, take what it measured into the store.

The process (`python -m tasks.evaluation`) imports torch and transformers, and lm-eval for benchmarks only.
Its folder is `<store>/work/evaluation/<fingerprint>/`, for a store elsewhere one under DAPT_SCRATCH: it keeps
the log and the answered requests of a unit that was interrupted, so that the next try goes on there, and is
removed when the unit stands.
"""

import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.evaluation.config import BenchmarkItems, BenchmarkUnit, HeldOutUnit, SamplesUnit
from tasks.evaluation.documents import read_slice
from tasks.evaluation.names import require_benchmarks
from tasks.evaluation.tables import (
    BENCHMARK_ITEMS,
    BENCHMARK_TEXTS,
    DOCUMENTS,
    HELD_OUT_ITEMS,
    ITEMS,
    SAMPLE_ITEMS,
)
from tasks.runtime.gpus import held_gpus
from tasks.runtime.launch import launch
from tasks.settings import Settings
from tasks.store.errors import (
    DaptError,
    RecipeError,
    ResourceError,
    SourceError,
    TransientError,
)
from tasks.store.folders import local_folder
from tasks.store.json import JSON
from tasks.store.shard import NodeWriter

_RAISED = {kind.__name__: kind for kind in (RecipeError, SourceError, TransientError, ResourceError)}
"""What a job may end with, besides DaptError itself."""


def build_benchmark(writer: NodeWriter) -> None:
    """Score one model on one benchmark.

    `details`: score and stderr of `metric` (acc_norm where the benchmark has it, else acc), each metric with
    its stderr, items, chance, version, num_fewshot, truncated (answers whose prompt was), datasets (revisions
    by name), and for a group its subjects. `data.parquet`: a row an item.

    Raises:
        RecipeError: lm-eval has no such benchmark, or it is none with answers to choose from.
        SourceError: its data set or the model cannot be had, or do not fit each other.
        TransientError: the network failed.
    """
    unit = BenchmarkUnit.model_validate(writer.node.config)
    require_benchmarks([unit.benchmark])
    work = _work(writer)
    result = _run(writer, work, unit.model_dump() | {"fingerprint": writer.node.fingerprint})
    _take_items(writer, work, BENCHMARK_ITEMS)
    writer.details = result["scores"]
    shutil.rmtree(work)


def build_items(writer: NodeWriter) -> None:
    """Write down the text of every item of some benchmarks.

    `details`: datasets (revisions by name). `data.parquet`: a row an item.

    Raises:
        RecipeError: lm-eval has no such benchmark, or it is none with answers to choose from.
        SourceError: a data set cannot be had.
        TransientError: the network failed.
    """
    chosen = BenchmarkItems.model_validate(writer.node.config)
    require_benchmarks(chosen.benchmarks)
    work = _work(writer)
    writer.details = _launched(writer, work, {"kind": "items"} | chosen.model_dump(), {})
    _take_items(writer, work, BENCHMARK_TEXTS)
    shutil.rmtree(work)


def build_held_out(writer: NodeWriter) -> None:
    """Measure bits per byte of one model on one slice.

    `details`: bits_per_byte (null: the slice is empty, not measured), documents, bytes, bits, tokens and
    context.
    `data.parquet`: a row a document.

    Raises:
        SourceError: the model cannot be had or does not fit its tokenizer.
        StoreDamaged: what the slice stands on is not whole.
    """
    unit = HeldOutUnit.model_validate(writer.node.config)
    job: JSON = {"kind": unit.kind, "context": unit.context}
    items, result = _run_on_slice(writer, unit.max_documents, job, HELD_OUT_ITEMS)
    if len(items) == 0:
        writer.details = _bits(0, 0, 0.0, 0)
        return
    totals = {name: pc.sum(items[name]).as_py() for name in ("bytes", "nats", "tokens")}
    writer.tokens = totals["tokens"]
    writer.details = _bits(len(items), totals["bytes"], totals["nats"], totals["tokens"])
    writer.details["context"] = result["context"]


def build_samples(writer: NodeWriter) -> None:
    """Have one model continue the first held-out documents, by its likeliest token each time.

    `details`: tokens (written), prompt_tokens. `data.parquet`: a row a document longer than a prompt.

    Raises:
        SourceError: the model cannot be had or does not fit its tokenizer.
        StoreDamaged: what the slice stands on is not whole.
    """
    unit = SamplesUnit.model_validate(writer.node.config)
    _, result = _run_on_slice(writer, unit.of_first, unit.model_dump(), SAMPLE_ITEMS)
    writer.tokens = result.get("tokens", 0)
    writer.details = {name: result.get(name, 0) for name in ("tokens", "prompt_tokens")}


def _run_on_slice(
    writer: NodeWriter, max_documents: int, job: JSON, schema: pa.Schema
) -> tuple[pa.Table, JSON]:
    """Give the job the texts of a slice; what it made, and told. An empty slice starts no process."""
    documents = read_slice(writer.store, writer.node.reads["slice"], max_documents)
    if len(documents) == 0:
        with writer.parquet(schema) as out:
            out.write_table(schema.empty_table())
        return schema.empty_table(), {}
    work = _work(writer)
    pq.write_table(documents, work / DOCUMENTS)
    result = _run(writer, work, job)
    _take_items(writer, work, schema)
    items = pq.read_table(work / ITEMS)
    shutil.rmtree(work)
    return items, result


def _bits(documents: int, num_bytes: int, nats: float, tokens: int) -> JSON:
    bits = nats / math.log(2)
    return {
        "bits_per_byte": bits / num_bytes if num_bytes else None,
        "documents": documents,
        "bytes": num_bytes,
        "bits": bits,
        "tokens": tokens,
    }


def _run(writer: NodeWriter, work: Path, job: JSON) -> JSON:
    node = writer.node
    model = local_folder(
        writer.store, node.reads["model"], node.inputs["model"], weights=True, into=work / "model"
    )
    tokenizer = local_folder(
        writer.store,
        node.reads["tokenizer"],
        node.inputs["tokenizer"],
        weights=False,
        into=work / "tokenizer",
    )
    job |= {"model": str(model), "tokenizer": str(tokenizer), "eos_id": node.reads["eos_id"]}
    with held_gpus(1) as gpu:
        result = _launched(writer, work, job, gpu)
    writer.how |= {
        name: result[name] for name in ("device", "cpu_seconds", "answers_computed") if name in result
    }
    return result


def _launched(writer: NodeWriter, work: Path, job: JSON, env: Mapping[str, str]) -> JSON:
    # lm-eval's default is inside site-packages
    own = {"LM_HARNESS_CACHE_PATH": str(work / "requests"), "TOKENIZERS_PARALLELISM": "false"}
    result = launch(
        "tasks.evaluation",
        job | {"folder": _folder_of_benchmarks()},
        folder=work,
        env={**own, **env},
        on_event=lambda event: writer.progress(event["done"], event["total"], event["unit"]),
    )
    if "error" in result:
        raise _RAISED.get(result["error"]["kind"], DaptError)(
            f"{result['error']['text']} (log: {work}/log.txt)"
        )
    return result


def _folder_of_benchmarks() -> str | None:
    given = Settings().benchmarks
    if given is None:
        return None
    if not Path(given).is_dir():
        raise SourceError(
            f"DAPT_BENCHMARKS={given} is no folder; leave it out to read benchmarks from the Hub"
        )
    return str(Path(given).absolute())


def _work(writer: NodeWriter) -> Path:
    path = f"work/evaluation/{writer.node.fingerprint}"
    if writer.store.local is not None:
        work = writer.store.local_path(path)
    else:
        work = Path(Settings().scratch or tempfile.gettempdir()) / "dapt" / path
    work.mkdir(parents=True, exist_ok=True)
    return work


def _take_items(writer: NodeWriter, work: Path, schema: pa.Schema) -> None:
    with pq.ParquetFile(work / ITEMS) as items, writer.parquet(schema) as out:
        for batch in items.iter_batches():
            out.write_batch(batch)
            writer.documents_in += len(batch)
    writer.documents_out = writer.documents_in
