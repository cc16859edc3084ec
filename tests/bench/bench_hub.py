"""One shard of a Parquet file on the Hub: bytes, requests and seconds, by ranges of ours and through fsspec.

`PYTHONPATH=. python tests/bench/bench_hub.py`: a file of 40 row groups (text, and as much in columns that
nobody wants), of which a shard is 20, on a loopback Hub, at once and with 50 ms before every answer. Each way
in three processes; told is the median of their second reads, as of a worker that has begun. `fsspec` is
`pq.ParquetFile` over `HfFileSystem`: with its own read-ahead of 5 MB, and without, but with Parquet's buffer
at 8 MB.
"""

import io
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem

from tasks.download.config import ReadConfig, SourceFile, SourceShard
from tasks.download.stream import Tally, iter_documents
from tests.hub_server import HubServer

GROUPS, ROWS, SHARD = 40, 1000, (10, 30)
TEXT_BYTES = 3000
LATENCY_S = 0.05
OURS, BUFFER, READ_AHEAD = "ranges, 4 in flight", "fsspec, 8 MB buffer", "fsspec, read-ahead"


def parquet() -> bytes:
    """The file."""
    words, out = random.Random(0), io.BytesIO()
    schema = pa.schema({"text": pa.string(), "id": pa.string(), "url": pa.string(), "vector": pa.binary()})
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for _ in range(GROUPS):
            columns = {
                "text": [words.randbytes(TEXT_BYTES // 2).hex() for _ in range(ROWS)],
                "id": [str(number) for number in range(ROWS)],
                "url": [words.randbytes(40).hex() for _ in range(ROWS)],
                "vector": [words.randbytes(TEXT_BYTES // 2) for _ in range(ROWS)],
            }
            writer.write_table(pa.table(columns, schema))
    return out.getvalue()


def ours(file: SourceFile) -> int:
    """Rows of the shard, as a download reads them."""
    with tempfile.TemporaryDirectory() as work:
        shard = SourceShard(files=[file])
        return sum(len(batch) for batch in iter_documents(shard, ReadConfig(), Tally(), Path(work)))


def through_fsspec(file: SourceFile, *, read_ahead: bool) -> int:
    """Rows of the shard, by Parquet's reader over `HfFileSystem`."""
    fs = HfFileSystem()
    how = {} if read_ahead else {"cache_type": "none"}
    with (
        fs.open(file.address, "rb", **how) as data,
        pq.ParquetFile(data, buffer_size=0 if read_ahead else 8 * 2**20, pre_buffer=False) as parquet,
    ):
        groups = range(*SHARD)
        return sum(
            len(batch)
            for group in groups
            for batch in parquet.iter_batches(ROWS, row_groups=[group], columns=["text", "id"])
        )


def read(way: str, file: SourceFile) -> tuple[float, float]:
    """When the shard is begun for the second time, on the machine's monotonic clock, and when it is read."""
    for _ in range(2):
        begun = time.monotonic()
        rows = ours(file) if way == OURS else through_fsspec(file, read_ahead=way == READ_AHEAD)
        assert rows == ROWS * (SHARD[1] - SHARD[0])
    return begun, time.monotonic()


def measure(hub: HubServer, way: str, file: SourceFile) -> None:
    """Have three processes read; tell the median."""
    seconds, sent, asked = [], 0, 0
    words = [sys.executable, __file__, way, msgspec.json.encode(file).decode()]
    for _ in range(3):
        done = subprocess.run(
            words, env=os.environ | {"HF_ENDPOINT": hub.url}, capture_output=True, check=True
        )
        begun, ended = map(float, done.stdout.split())
        seconds.append(ended - begun)
        new = [one for one in hub.asked if begun <= one.at_s]
        sent, asked = sum(one.sent for one in new), len(new)
    print(f"  {way:22} {sent / 1e6:6.1f} MB {asked:4} requests {statistics.median(seconds):6.2f} s")


def main() -> None:
    data = parquet()
    metadata = pq.read_metadata(io.BytesIO(data))
    chunks = sum(
        metadata.row_group(group).column(column).total_compressed_size
        for group in range(*SHARD)
        for column in (0, 1)
    )
    print(f"file {len(data) / 1e6:.1f} MB; column chunks of the shard {chunks / 1e6:.1f} MB")
    with HubServer() as hub:
        commit = hub.publish("owner/data", {"a.parquet": data})
        file = SourceFile(
            address=f"hf://datasets/owner/data@{commit}/a.parquet",
            format="parquet",
            digest=hub.digest("a.parquet"),
            bytes=len(data),
            row_groups=SHARD,
        )
        for latency in (0.0, LATENCY_S):
            hub.latency_s = latency
            print(f"{latency * 1000:.0f} ms a request")
            for way in (OURS, BUFFER, READ_AHEAD):
                measure(hub, way, file)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(*read(sys.argv[1], msgspec.json.decode(sys.argv[2], type=SourceFile)))
    else:
        main()
