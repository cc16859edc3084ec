"""Files of the Hub over a real loopback one, whatever it does to them."""

import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import close_session, constants

from tasks.download import transfer
from tasks.download.config import STAGE, Range, ReadConfig, SourceConfig, SourceFile, SourceShard, node
from tasks.download.cutting import cut
from tasks.download.digests import DigestMemory
from tasks.download.remote import GAP_BYTES, PIECE_BYTES, HubFile, column_spans
from tasks.download.shard import build_download
from tasks.download.spool import Span
from tasks.download.stream import Tally, iter_documents
from tasks.store.errors import ResourceError, SourceError, TransientError
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table
from tests.hub_server import Asked, Fault, HubServer

pytestmark = pytest.mark.slow  # a server, sockets, a process

ROOT = Path(__file__).parents[2]
FOOTER_BYTES = 2**16
ROWS, GROUPS = 100, 6


def table(seed: int = 0) -> pa.Table:
    """Text and twice as much beside it, neither of which compresses."""
    words = random.Random(seed)
    texts = [words.randbytes(1500).hex() for _ in range(ROWS * GROUPS)]
    others = [words.randbytes(3000) for _ in texts]
    return pa.table({"junk": others, "text": texts, "id": list(range(len(texts)))})


def parquet(content: pa.Table, **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(content, out, row_group_size=ROWS, write_statistics=False, **options)
    return out.getvalue()


CONTENT = table()
DATA = parquet(CONTENT)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that this process is pointed at; waits are short."""
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.001)
    monkeypatch.setattr(transfer, "STALL_S", 10.0)
    monkeypatch.setenv("HF_TOKEN", "")
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server
        close_session()


def listed(
    hub: HubServer, name: str = "a.parquet", data: bytes = DATA, *, groups: Range | None = None
) -> SourceFile:
    """A file as it is listed."""
    commit = hub.publish("owner/data", {name: data})
    large = hashlib.sha256(data).hexdigest()
    kind = {"parquet": "parquet", "gz": "jsonl.gz", "jsonl": "jsonl", "txt": "txt"}[name.rsplit(".", 1)[-1]]
    git = f"blob:{hashlib.sha1(b'blob %d' % len(data) + bytes(1) + data).hexdigest()}"
    return SourceFile(
        address=f"hf://datasets/owner/data@{commit}/{name}",
        format=kind,  # type: ignore[arg-type]
        digest=git if kind == "txt" else large,
        bytes=len(data),
        row_groups=groups,
    )


def texts(file: SourceFile, work: Path) -> list[str]:
    config = ReadConfig(format=file.format)
    batches = iter_documents(SourceShard(files=[file]), config, Tally(), work)
    return [text for batch in batches for text in batch.column("text").to_pylist()]


def wanted_bytes(groups: range, *columns: str) -> int:
    metadata = pq.read_metadata(io.BytesIO(DATA))
    return sum(end - start for start, end in column_spans(metadata, groups, columns))


def sent(hub: HubServer) -> int:
    return sum(one.sent for one in hub.blobs_asked())


def spans(asked: list[Asked]) -> list[Span]:
    """What was sent, where it lies."""
    return [(one.start, one.start + one.sent) for one in asked if one.start is not None]


def test_a_full_disk_is_told(hub: HubServer, tmp_path: Path) -> None:
    file = listed(hub)
    with HubFile(file.address, file.digest, file.bytes, tmp_path) as source:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, source._spool._journal)
        os.close(full)
        with pytest.raises(ResourceError, match="No space left on device; free some"):
            source.read(10)


def test_only_the_columns_and_row_groups_wanted_are_fetched(hub: HubServer, tmp_path: Path) -> None:
    file = listed(hub, groups=(1, 3))
    assert texts(file, tmp_path) == CONTENT["text"].to_pylist()[ROWS : 3 * ROWS]
    needed = wanted_bytes(range(1, 3), "text", "id")
    assert needed < len(DATA) / 6
    assert needed <= sent(hub) <= needed + FOOTER_BYTES
    resolved = [one.what for one in hub.asked if "/resolve/" in one.what]
    assert [what.split("/")[0] for what in resolved] == ["HEAD "], "once"
    assert len(hub.blobs_asked()) == 1 + 2, "the footer, and a span a row group"


def test_a_plan_reads_the_footer_and_nothing_else(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.append(Fault("GET /blobs/", then="cut", after=1000))
    found = cut(listed(hub), SourceConfig(dataset="owner/data"), DigestMemory(Store(str(tmp_path))))
    assert found.parts[0].read_bytes == pytest.approx(wanted_bytes(range(GROUPS), "text", "id"), rel=0.01)
    assert sent(hub) == FOOTER_BYTES


def test_pieces_are_fetched_while_others_are_on_their_way(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STALL_S", 1.0)
    data = random.Random(1).randbytes(2 * PIECE_BYTES + 5)
    file = listed(hub, "a.jsonl", data)
    hub.faults.append(Fault("bytes=0-", then="stall", after=10))
    source = HubFile(file.address, file.digest, file.bytes, tmp_path)
    source.expect([(0, len(data))])
    source.seek(PIECE_BYTES)
    assert source.read() == data[PIECE_BYTES:], "what comes behind is here, whatever the first piece does"
    source.seek(0)
    assert source.read(PIECE_BYTES) == data[:PIECE_BYTES]
    assert sorted(one.start for one in hub.blobs_asked()) == [0, 10, PIECE_BYTES, 2 * PIECE_BYTES]
    source.close()


FAULTS = {
    "429": Fault("GET /blobs/", 429, times=5),
    "429 of the Hub": Fault("HEAD /datasets", 429, times=5),
    "503": Fault("GET /blobs/", 503, times=7),
    "500": Fault("HEAD /datasets", 500, times=2),
    "cut": Fault("GET /blobs/", then="cut", after=70_000, times=6, skip=1),
    "cut at once": Fault("GET /blobs/", then="cut", times=3),
    "reset": Fault("GET /blobs/", then="reset", after=5000, times=3, skip=1),
    "stalled": Fault("GET /blobs/", then="stall", after=5000, times=2, skip=1),
    "slow": Fault("GET /blobs/", then="slow", times=1, skip=1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_that_pass_change_nothing(
    hub: HubServer, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "stalled":
        monkeypatch.setattr(transfer, "STALL_S", 0.7)
    hub.faults.append(Fault(**vars(FAULTS[name])))
    assert texts(listed(hub), tmp_path) == CONTENT["text"].to_pylist()
    assert hub.faults == [], "it was met"
    assert sent(hub) <= wanted_bytes(range(GROUPS), "text", "id") + FOOTER_BYTES + GAP_BYTES, "no byte twice"


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_body_goes_on_at_the_byte_where_it_stopped(hub: HubServer, tmp_path: Path, how: str) -> None:
    data = random.Random(2).randbytes(500_000)
    hub.faults.append(Fault("GET /blobs/", then=how, after=123_456))  # type: ignore[arg-type]
    hub.faults.append(Fault("GET /blobs/", then=how, after=200_000))  # type: ignore[arg-type]
    file = listed(hub, "a.jsonl", data)
    with HubFile(file.address, file.digest, file.bytes, tmp_path) as source:
        assert source.read() == data
    first, second, third = hub.blobs_asked()
    assert [first.start, second.start, third.start] == [0, 123_456, 323_456]
    assert "if-range" not in first.headers
    assert second.headers["if-range"] == third.headers["if-range"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert sent(hub) == len(data)


def test_a_host_is_asked_again_when_it_said(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.append(Fault("GET /blobs/", 429, {"Retry-After": "1"}))
    file = listed(hub, "a.jsonl", b"data")
    with HubFile(file.address, file.digest, file.bytes, tmp_path) as source:
        assert source.read() == b"data"
    first, second = hub.blobs_asked()
    assert second.at_s - first.at_s >= 1


def test_a_network_that_stays_away_is_worth_another_try_that_fetches_the_rest(
    hub: HubServer, tmp_path: Path
) -> None:
    """As the task does it: the shard fails, is made again, and the bytes that came are not fetched again."""
    file, store = listed(hub), Store(str(tmp_path / "store"))
    made = node(SourceConfig(dataset="owner/data"), SourceShard(files=[file]))
    hub.faults.append(Fault("GET /blobs/", then="cut", after=100_000, skip=3))
    hub.faults.append(Fault("GET /blobs/", 503, times=1000, skip=4))

    def build() -> None:
        build_node(store, made, build_download, room="tasks.download", shard="0")

    with pytest.raises(TransientError, match=r"503.*\(8 tries in a row\)"):
        build()
    before = sent(hub)
    assert before > 100_000
    assert [path.name for path in (tmp_path / "store" / "work" / STAGE).iterdir()] == [made.fingerprint]
    hub.faults.clear()
    build()
    assert read_table(store, made.path)["text"].to_pylist() == CONTENT["text"].to_pylist()
    assert sent(hub) <= wanted_bytes(range(GROUPS), "text", "id") + FOOTER_BYTES + GAP_BYTES
    assert not (tmp_path / "store" / "work" / STAGE / made.fingerprint).exists()


KILLED = """
import sys
from pathlib import Path
from tasks.download import transfer
from tasks.download.remote import HubFile
transfer.SEGMENT_BYTES = 10_000
with HubFile(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])) as source:
    source.expect([(0, int(sys.argv[3]))])
    source.read()
"""


def test_a_killed_process_leaves_what_it_has_to_the_next(hub: HubServer, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(1_000_000)
    file = listed(hub, "a.jsonl", data)
    hub.faults.append(Fault("GET /blobs/", then="stall", after=705_000))
    words = [sys.executable, "-c", KILLED, file.address, file.digest, str(file.bytes), str(tmp_path)]
    child = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "HF_ENDPOINT": hub.url})
    had = 0
    while had < 600_000:
        assert child.poll() is None
        time.sleep(0.02)
        lines = [line for path in tmp_path.glob("*.have") for line in path.read_text().splitlines()]
        had = sum(int(end) - int(start) for start, end, _ in map(str.split, lines))
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = len(hub.blobs_asked())
    with HubFile(file.address, file.digest, file.bytes, tmp_path) as source:
        assert source.read() == data
    assert sum(one.sent for one in hub.blobs_asked()[before:]) == len(data) - had


def test_a_file_that_changed_meanwhile_is_refused(hub: HubServer, tmp_path: Path) -> None:
    file, other = listed(hub), parquet(table(seed=9))
    with HubFile(file.address, file.digest, file.bytes, tmp_path) as source:
        source.read(10)
        hub.commits["owner/data"][str(hub.resolve("owner/data", "main"))]["a.parquet"] = other
        hub.altered[file.digest] = other
        source.seek(10 + GAP_BYTES)
        with pytest.raises(SourceError, match="has changed since it was listed: found") as caught:
            source.read(1000)
    assert type(caught.value) is SourceError


def test_a_host_that_sends_another_length_than_the_hub_lists_is_refused(
    hub: HubServer, tmp_path: Path
) -> None:
    file = listed(hub)
    hub.altered[file.digest] = DATA + b"more"
    with pytest.raises(SourceError, match=rf"found {len(DATA) + 4} bytes, expected {len(DATA)}"):
        texts(file, tmp_path)


def test_what_was_listed_otherwise_is_refused_before_a_byte_is_read(hub: HubServer, tmp_path: Path) -> None:
    file = listed(hub)
    hub.commits["owner/data"][str(hub.resolve("owner/data", "main"))]["a.parquet"] = parquet(table(seed=9))
    with pytest.raises(SourceError, match=r"a\.parquet has changed since it was listed: found"):
        texts(file, tmp_path)
    assert hub.blobs_asked() == []


def test_a_signed_address_that_ran_out_is_resolved_again(hub: HubServer, tmp_path: Path) -> None:
    hub.signature = "first-signature"
    file = listed(hub)
    with HubFile(file.address, file.digest, file.bytes, tmp_path) as source:
        assert source.read(100) == DATA[:100]
        hub.signature = "second-signature"
        assert source.read() == DATA[100:]
    refused = [one for one in hub.blobs_asked() if "first" in one.what and not one.sent]
    assert len(refused) <= 2
    assert sum(one.what.startswith("HEAD") for one in hub.asked) == 2


def test_a_host_that_goes_on_refusing_is_told_without_its_secrets(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted_token")
    hub.token, hub.signature = "hf_planted_token", "planted-signature"
    file = listed(hub)
    hub.withheld = [file.digest]
    with pytest.raises(SourceError, match="may not read this") as caught:
        texts(file, tmp_path)
    assert type(caught.value) is SourceError
    assert "planted" not in re.sub(r"/tmp\S+", "", str(caught.value))
    assert sum(one.what.startswith("HEAD") for one in hub.asked) == 2, "resolved again once"


def test_the_token_goes_to_the_endpoint_alone(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="tasks")
    monkeypatch.setenv("HF_TOKEN", "hf_planted_token")
    hub.token, hub.signature = "hf_planted_token", "planted-signature"
    hub.faults.append(Fault("GET /blobs/", 503, times=2))
    assert texts(listed(hub), tmp_path) == CONTENT["text"].to_pylist()
    hosts = {one.host.split(":")[0] for one in hub.asked if "authorization" in one.headers}
    assert hosts == {"127.0.0.1"}
    assert {one.host.split(":")[0] for one in hub.blobs_asked()} == {"127.0.0.2"}
    assert "again in" in caplog.text
    assert "planted" not in caplog.text


def test_switched_off_the_hub_is_not_asked_and_what_was_fetched_is_read(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = listed(hub)
    expected = texts(file, tmp_path / "filled")
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert texts(file, tmp_path / "filled") == expected
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE is set, and these bytes were not fetched before"):
        texts(file, tmp_path / "empty")
    assert len(hub.asked) == asked


def test_whole_files_are_resumed_and_hashed(hub: HubServer, tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in CONTENT["text"].to_pylist())
    data = gzip.compress(lines, mtime=0)
    hub.faults.append(Fault("GET /blobs/", then="cut", after=300_000))
    file = listed(hub, "a.jsonl.gz", data)
    assert texts(file, tmp_path / "a") == CONTENT["text"].to_pylist()
    assert sent(hub) == len(data)
    hub.altered[file.digest] = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    with pytest.raises(TransientError, match="what arrived is not what its host lists"):
        texts(file, tmp_path / "b")
    hub.altered.clear()
    assert texts(file, tmp_path / "b") == CONTENT["text"].to_pylist(), "the damaged bytes were not kept"


def test_a_small_file_is_known_by_its_name_in_git(hub: HubServer, tmp_path: Path) -> None:
    file = listed(hub, "a b.txt", "schön".encode())
    assert texts(file, tmp_path) == ["schön"]
    with pytest.raises(SourceError, match="has changed"):
        texts(
            SourceFile(
                **{**{f: getattr(file, f) for f in file.__struct_fields__}, "digest": "blob:" + "0" * 40}
            ),
            tmp_path,
        )


def test_damage_within_a_page_is_found_by_its_checksum_and_not_kept(hub: HubServer, tmp_path: Path) -> None:
    data = parquet(CONTENT, write_page_checksum=True, compression="none")
    file = listed(hub, data=data)
    at = data.index(CONTENT["text"][150].as_py().encode())
    hub.altered[file.digest] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(SourceError, match="could not verify page integrity"):
        texts(file, tmp_path)
    hub.altered.clear()
    assert texts(file, tmp_path) == CONTENT["text"].to_pylist()


def test_memory_does_not_grow_with_what_is_expected(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(48 * 2**20)
    file = listed(hub, "a.jsonl", data)
    tracemalloc.start()
    try:
        with HubFile(file.address, file.digest, file.bytes, tmp_path) as source:
            source.expect([(0, len(data))])
            source.wait_for(0, len(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    shutil.rmtree(tmp_path)
    # The server lives in this process too: a range in flight is there once, and here as one segment twice.
    assert peak < 4 * (PIECE_BYTES + 4 * transfer.SEGMENT_BYTES)
