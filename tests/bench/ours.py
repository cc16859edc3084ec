"""What `bench_data` measures of the rooms, each step in a process of its own, on the nodes of a store.

A warm-up on a few documents loads the compiled kernels first: a machine compiles them once.
"""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import tasks.dedup.config as dedup
import tasks.download.config as download
import tasks.filtering.config as filtering
import tasks.packing.config as packing
import tasks.tokenization.config as tokenization
from tasks.dedup.exact import buffers
from tasks.dedup.minhash import signatures
from tasks.download.digests import DigestMemory
from tasks.download.source import list_source
from tasks.filtering.repetition import REPETITION_METRICS, measure_repetition
from tasks.packing.shard import LAYOUT, ROWS_PER_GROUP, build_corpus
from tasks.store.manifest import stands
from tasks.store.models import resolve_model
from tasks.store.node import Node
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.store.shard import build_node, iter_batches, read_table
from tasks.text.columns import text_buffers
from tasks.tokenization.encode import load_encoder
from tests.bench.measured import answer, cpu_seconds
from tests.flows.made import BUILDS

Shard = dict[str, Node]
KEEP_ALL = {"min_lines": 0} | dict.fromkeys(("short_line_char_frac", *REPETITION_METRICS), 1.0)
"""A filter that drops nothing."""
_BEFORE, _BEHIND = ("download", "filtering", "signatures"), ("tokenization", "packing")


def chain(
    store: Store, files: list[str], tokenizer: str, shard_bytes: int, filters: dict[str, float] | None = None
) -> list[Shard]:
    """The nodes of each shard, as the corpus flow has them."""
    source = download.SourceConfig(files=tuple(files), shard_bytes=shard_bytes)
    reference = tokenization.tokenizer_of(resolve_model(tokenizer, folder=Path.cwd(), weights=False))
    config = tokenization.TokenizationConfig(tokenizer=tokenizer)
    matching, held_out = dedup.DedupConfig(), dedup.HeldOutConfig(fraction=0.0)
    shards: list[Shard] = []
    verdicts = None
    for shard in list_source(source, folder=Path.cwd(), digests=DigestMemory(store)).shards:
        text = download.node(source, shard)
        filtered = filtering.node(filtering.FilteringConfig.model_validate(filters or {}), text)
        signed = dedup.signatures_node(matching, text, filtered)
        verdicts = dedup.node(matching, held_out, signed, verdicts)
        ids = tokenization.node(config, text, verdicts, reference)
        nodes = (text, filtered, signed, verdicts, ids, packing.node(packing.PackingConfig(), ids))
        shards.append({node.stage: node for node in nodes})
    return shards


def make(store: Store, node: Node) -> float:
    """Build a node; CPU seconds. No source hash is wanted, so the smallest room does for all."""
    started = cpu_seconds()
    build_node(store, node, BUILDS[node.stage], room="tasks.store", shard="0")
    return cpu_seconds() - started


def warm_up(folder: str, files: list[str], tokenizer: str) -> None:
    """Make every stage of a few documents."""
    few, store = Path(folder) / "few.parquet", Store(f"{folder}/warm")
    batch = next(pq.ParquetFile(files[0]).iter_batches(50, columns=["text"]))
    pq.write_table(pa.Table.from_batches([batch]), few)
    for node in chain(store, [str(few)], tokenizer, 1_000_000)[0].values():
        make(store, node)


def _batches(files: list[str]) -> list[pa.Array]:
    """Texts in memory, a thousand at a time, as the rooms read them."""
    parts = (pq.ParquetFile(file).iter_batches(1000, columns=["text"]) for file in files)
    return [batch["text"] for part in parts for batch in part]


def repetition(files: list[str]) -> dict[str, Any]:
    """The thirteen metrics of texts in memory, no other."""
    batches = _batches(files)
    measure_repetition(*text_buffers(batches[0].slice(0, 10)))
    started, text_bytes = cpu_seconds(), 0
    for batch in batches:
        offsets, data = text_buffers(batch)
        measure_repetition(offsets, data)
        text_bytes += len(data)
    return {"bytes": text_bytes, "cpu": cpu_seconds() - started}


def signing(files: list[str]) -> dict[str, Any]:
    """Signatures of texts in memory, as the anchors have them."""
    batches = _batches(files)
    signatures(*buffers(batches[0].slice(0, 10)))
    started, text_bytes = cpu_seconds(), 0
    for batch in batches:
        offsets, data = buffers(batch)
        signatures(offsets, data)
        text_bytes += len(data)
    return {"bytes": text_bytes, "cpu": cpu_seconds() - started}


def stages(
    folder: str, files: list[str], tokenizer: str, shard_bytes: int, most: int = 10**9, workers: int = 1
) -> dict[str, Any]:
    """Raw text to packed rows: CPU seconds of every stage, and of all."""
    warm_up(folder, files, tokenizer)
    store = Store(f"{folder}/store")
    shards = chain(store, files, tokenizer, shard_bytes)[:most]
    spent = dict.fromkeys(BUILDS, 0.0)

    def build(shard: Shard, names: tuple[str, ...]) -> None:
        for name in names:
            spent[name] += make(store, shard[name])

    started, clock = cpu_seconds(), time.perf_counter()
    if workers == 1:
        for shard in shards:
            build(shard, tuple(shard))
    else:
        # As the flow has it: what a shard needs alone is done side by side, its verdicts in order.
        with ThreadPoolExecutor(workers) as pool:
            before = [pool.submit(build, shard, _BEFORE) for shard in shards]
            behind = []
            for shard, ready in zip(shards, before, strict=True):
                ready.result()
                build(shard, ("dedup",))
                behind.append(pool.submit(build, shard, _BEHIND))
            for done in behind:
                done.result()
    total, wall = cpu_seconds() - started, time.perf_counter() - clock
    texts, packed = ([stands(store, s[name].path) for s in shards] for name in ("download", "packing"))
    return {
        "bytes": sum(manifest.details["text_bytes"] for manifest in texts if manifest),
        "tokens": sum(manifest.tokens for manifest in packed if manifest),
        "cpu": total,
        "wall": wall,
        "stages": spent,
        "parquet": sum(parquet_alone(store, shard, f"{folder}/again.parquet") for shard in shards[:2]),
        "parquet_tokens": sum(manifest.tokens for manifest in packed[:2] if manifest),
        "shards": len(shards),
    }


def parquet_alone(store: Store, shard: Shard, path: str) -> float:
    """CPU seconds to read what packing reads of a shard and to write what it writes: its floor."""
    groups = list(iter_batches(store, shard["packing"].path, rows=ROWS_PER_GROUP))
    started = cpu_seconds()
    for _ in iter_batches(store, shard["tokenization"].path, columns=["id", "kept", "input_ids"]):
        pass
    with pq.ParquetWriter(path, groups[0].schema, compression="zstd", **LAYOUT) as out:
        for group in groups:
            out.write_batch(group)
    return cpu_seconds() - started


def near_duplicates(folder: str, files: list[str], tokenizer: str) -> dict[str, Any]:
    """Verdicts on documents of which the filter keeps all: signatures and matching, Parquet to Parquet."""
    warm_up(folder, files, tokenizer)
    store, spent, text_bytes = Store(f"{folder}/store"), {"signatures": 0.0, "dedup": 0.0}, 0
    gone: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for shard in chain(store, files, tokenizer, 64_000_000, KEEP_ALL):
        make(store, shard["download"])
        make(store, shard["filtering"])
        for stage in spent:
            spent[stage] += make(store, shard[stage])
        text = read_table(store, shard["download"].path, columns=["id", "source_id", "text"])
        text_bytes += int(text_buffers(text["text"].combine_chunks())[0][-1])
        names |= zip(text["id"].to_pylist(), text["source_id"].to_pylist(), strict=True)
        for row in read_table(store, shard["dedup"].path).to_pylist():
            if not row["kept"]:
                gone[names[row["id"]]] = [names[row["duplicate_of"]]]
    cpu = {"signed": spent["signatures"], "cpu": sum(spent.values())}
    return {"bytes": text_bytes, "removed": gone, **cpu}


def tokens(folder: str, files: list[str], tokenizer: str) -> dict[str, Any]:
    """The first shard's ids by a cold encoder, then again by the same; what HF is then compared with."""
    load_encoder(Path(tokenizer)).tokenizer.save(f"{folder}/tokenizer.json")
    store = Store(f"{folder}/store")
    shard = chain(store, files, tokenizer, 64_000_000)[0]
    for stage in (*_BEFORE, "dedup"):
        make(store, shard[stage])
    node = shard["tokenization"]
    cold = make(store, node)
    shutil.rmtree(store.local_path(node.path))
    warm = make(store, node)
    ids = read_table(store, node.path, columns=["id", "kept", "input_ids"])
    ids = ids.filter(ids["kept"])
    text = read_table(store, shard["download"].path, columns=["id", "text"])
    text = text.filter(pc.is_in(text["id"], value_set=ids["id"].combine_chunks()))  # both in source order
    both = ids.select(["id", "input_ids"]).append_column("text", text["text"])
    pq.write_table(both, f"{folder}/encoded.parquet", row_group_size=500)
    text_bytes = int(text_buffers(both["text"].combine_chunks())[0][-1])
    return {"bytes": text_bytes, "cpu": cold, "warm": warm}


def random_rows(folder: str, files: list[str], tokenizer: str) -> dict[str, Any]:
    """Rows of a packed corpus in random order, and in order."""
    store = Store(f"{folder}/store")
    shard = chain(store, files, tokenizer, 64_000_000)[0]
    for node in shard.values():
        make(store, node)
    packed = stands(store, shard["packing"].path)
    assert packed is not None
    rows = packed.details["sequences"]
    config = packing.PackingConfig()
    corpus = packing.corpus_node([(shard["packing"], rows)], config=config, budget=packed.tokens)
    build_node(store, corpus, build_corpus, room="tasks.store", shard="0")
    found: dict[str, Any] = {"rows": rows}
    for name, order in (("ordered", np.arange(rows)), ("random", np.random.default_rng(0).permutation(rows))):
        with PackedCorpus(store, corpus.path, cached_groups=1) as opened:
            opened.rows(order[:1])  # the file is hashed when it is opened
            started = cpu_seconds()
            for row in range(rows):
                opened.rows(order[row : row + 1])
            found[name] = (cpu_seconds() - started) / rows
    return found


if __name__ == "__main__":
    answer(
        {
            "repetition": repetition,
            "signing": signing,
            "stages": stages,
            "near_duplicates": near_duplicates,
            "tokens": tokens,
            "random_rows": random_rows,
        }
    )
