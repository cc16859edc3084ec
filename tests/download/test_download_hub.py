"""A Hub's data set, listed and read in a process of its own: HF_ENDPOINT is read at import."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.download.config import SourceConfig, SourceFile, SourceShard, node
from tests.hub_server import Fault, HubServer

pytestmark = pytest.mark.flow  # not Prefect: each starts a process, which the unit lane has no time for

ROOT = Path(__file__).parents[2]
CARD = b"""---
configs:
- config_name: default
  data_files: [{split: train, path: ["b/*.parquet", "a/*.parquet", "b/*.parquet"]}]
- config_name: lines
  data_files: [{split: train, path: "*.jsonl.gz"}, {split: test, path: "*.jsonl"}]
---
"""
READER = """
import json, sys
from pathlib import Path
import msgspec
from tasks.download import transfer
from tasks.download.config import SourceConfig, node
from tasks.download.digests import DigestMemory
from tasks.download.shard import build_download
from tasks.download.source import list_source
from tasks.store.errors import DaptError
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table

transfer.BACKOFF_S = 0.001
store, answers = Store(sys.argv[1]), []
for job in json.loads(sys.argv[2]):
    try:
        config = SourceConfig(**job)
        source = list_source(config, folder=Path("/"), digests=DigestMemory(store))
        texts = []
        for number, shard in enumerate(source.shards):
            made = node(config, shard)
            manifest, _ = build_node(store, made, build_download, room="tasks.download", shard=str(number))
            texts += read_table(store, manifest.path)["text"].to_pylist()
        shards = msgspec.to_builtins(source.shards)
        answers.append({"revision": source.revision, "shards": shards, "texts": texts, "notes": source.notes})
    except DaptError as err:
        answers.append({"error": type(err).__name__, "message": str(err)})
print(json.dumps(answers))
"""


def parquet(*texts: str, rows: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts), "url": ["u"] * len(texts)}), out, row_group_size=rows)
    return out.getvalue()


FILES = {
    "README.md": CARD,
    "a/0.parquet": parquet(*(f"a {number} " + "text " * 50 for number in range(40)), rows=10),
    "b/0.parquet": parquet("b one", "b two", rows=10),
    "b/1.parquet": parquet("b three", rows=10),
    "c.jsonl.gz": gzip.compress(b'{"text": "c"}\n', mtime=0),
    "d.jsonl": b"".join(json.dumps({"text": f"d {number}"}).encode() + b"\n" for number in range(100)),
}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(page=2) as server:
        yield server


def ask(hub: HubServer, folder: Path, *jobs: dict[str, Any], **env: str) -> list[dict[str, Any]]:
    """Run jobs one after another against one store, in one process."""
    words = [sys.executable, "-W", "ignore", "-c", READER, str(folder / "store"), json.dumps(jobs)]
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": ""}
    done = subprocess.run(
        words, env=os.environ | own | env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_data_set_is_pinned_listed_and_read_by_ranges(hub: HubServer, tmp_path: Path) -> None:
    first = hub.publish("owner/data", FILES)
    job = {"dataset": "owner/data", "shard_bytes": 8000}
    hub.faults.append(Fault("GET /blobs/", 503))
    found, lines, test = ask(
        hub,
        tmp_path,
        job,
        job | {"subset": "lines"},
        job | {"subset": "lines", "split": "test", "shard_bytes": 700},
    )
    assert hub.faults == []
    assert found["revision"] == first
    # The card's order, each file once; the large file by row groups, the small ones together.
    files = [[file["address"].split("/", 5)[-1] for file in shard["files"]] for shard in found["shards"]]
    assert files == [["b/0.parquet", "b/1.parquet"], ["a/0.parquet"], ["a/0.parquet"]]
    assert [shard["files"][0].get("row_groups") for shard in found["shards"]] == [None, [0, 2], [2, 4]]
    assert found["shards"][1]["files"][0]["digest"] == hashlib.sha256(FILES["a/0.parquet"]).hexdigest()
    assert [text[:5].strip() for text in found["texts"][:4]] == ["b one", "b two", "b thr", "a 0 t"]
    assert len(found["texts"]) == 43
    assert lines["texts"] == ["c"]
    assert len(test["shards"]) == 3
    assert test["texts"] == [f"d {number}" for number in range(100)]

    moved = hub.publish("owner/data", FILES | {"b/1.parquet": parquet("b changed", rows=10)})
    pinned, newest = ask(hub, tmp_path, job | {"revision": first}, job)
    assert pinned == found
    assert newest["revision"] == moved
    assert newest["texts"][2] == "b changed"
    assert newest["shards"][1]["files"][0]["digest"] == found["shards"][1]["files"][0]["digest"]

    # What was listed by commit is remembered: no request at all, not even with the Hub switched off.
    asked = len(hub.asked)
    again, unpinned = ask(hub, tmp_path, job | {"revision": first}, job, HF_HUB_OFFLINE="1")
    assert again == found
    assert unpinned["error"] == "SourceError"
    assert "HF_HUB_OFFLINE is set" in unpinned["message"]
    assert len(hub.asked) == asked


def test_hub_file_is_the_same_node_as_its_local_copy(hub: HubServer, tmp_path: Path) -> None:
    hub.publish("owner/data", FILES)
    (tmp_path / "copy.parquet").write_bytes(FILES["a/0.parquet"])
    remote, local = ask(
        hub,
        tmp_path,
        {"dataset": "owner/data", "exclude": ["b/*"]},
        {"files": [str(tmp_path / "copy.parquet")]},
    )
    prints = []
    for answer in (remote, local):
        files = [msgspec.convert(file, SourceFile) for file in answer["shards"][0]["files"]]
        prints.append(node(SourceConfig(files=("x",)), SourceShard(files=files)).fingerprint)
    assert prints[0] == prints[1]
    assert remote["texts"] == local["texts"]


def test_what_the_hub_refuses_is_told_with_a_remedy(hub: HubServer, tmp_path: Path) -> None:
    hub.publish("owner/data", FILES)
    hub.faults.append(Fault("/api/datasets/owner/flaky", 503, times=8))
    answers = ask(
        hub,
        tmp_path,
        {"dataset": "owner/none"},
        {"dataset": "owner/data", "revision": "0" * 40},
        {"dataset": "owner/data", "revision": "branch"},
        {"dataset": "owner/data", "subset": "nope"},
        {"dataset": "owner/data", "split": "validation"},
        {"dataset": "owner/flaky"},
    )
    for answer, kind, message in zip(
        answers,
        ["SourceError"] * 5 + ["TransientError"],
        [
            "data set owner/none is not on http",
            "0000' is not on",
            "owner/data has no revision 'branch'",
            "BuilderConfig 'nope' not found. Available: ['default', 'lines']",
            "has no split 'validation' in subset 'default'; it has 'train'",
            "the network failed",
        ],
        strict=True,
    ):
        assert (answer.get("error"), message in answer.get("message", "")) == (kind, True), answer


def test_damaged_delivery_is_worth_another_try(hub: HubServer, tmp_path: Path) -> None:
    hub.publish("owner/data", FILES)
    sent = FILES["b/0.parquet"]
    hub.altered[hub.digest("b/0.parquet")] = sent.replace(b"b one", b"b 0ne")
    (answer,) = ask(hub, tmp_path, {"dataset": "owner/data", "exclude": ["a/*"]})
    assert answer["error"] == "TransientError"
    assert "what arrived is not what its host lists" in answer["message"]
