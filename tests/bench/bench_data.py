"""The data stages beside datatrove, datasketch, gaoya, rensa and HF tokenizers: one run, one core, same text.

    python -m venv /tmp/anchors
    /tmp/anchors/bin/pip install datatrove spacy 'xxhash<4' datasketch gaoya rensa tokenizers pyarrow numba
    python -m tests.bench.bench_data --anchors /tmp/anchors/bin/python --tokenizer FOLDER

FOLDER holds a Llama-type `tokenizer.model` or `tokenizer.json`. The text is `edu` and `near_duplicates` of
$DAPT_TEST_DATA. Every step is a process of its own, pinned to one core; its CPU time and its peak memory
are told, so a busy machine disturbs the figures little. What is slow (datatrove, datasketch, rensa) runs on
a sample: every so many documents, and near-duplicate groups. Rates are in bytes of text.
xxhash 4 no longer takes the strings that datatrove 0.10 gives it.
"""

import argparse
import datetime
import os
import platform
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.bench.measured import ROOT, run
from tests.oracles.minhash import shingle_hashes

EDU_BYTES = 20_000_000
"""Of a shard of the scaling run: an eighth of `edu`, roughly."""
Found = dict[str, Any]


class Bench:
    """Files, steps and what they found.

    Args:
        data: the folder of real text.
        folder: for what the steps write.
        anchors: the Python that has the other tools.
        tokenizer: folder of the tokenizer.
        sample_bytes: text that the slow tools get.
    """

    def __init__(self, data: Path, folder: Path, anchors: str, tokenizer: str, sample_bytes: int) -> None:
        self.edu = [str(file) for file in sorted((data / "edu").glob("*.parquet"))]
        self.pairs = [str(file) for file in sorted((data / "near_duplicates").glob("*.parquet"))]
        self.folder, self.python, self.tokenizer = folder, anchors, tokenizer
        self.cores = sorted(os.sched_getaffinity(0))
        self.sample = [self._write("edu/sample", _every_so_many(self.edu[0], sample_bytes))]
        self.few_pairs = [self._write("pairs/sample", _some_groups(self.pairs, sample_bytes))]

    def _write(self, name: str, table: pa.Table) -> str:
        file = self.folder / f"{name}.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(table, file)
        return str(file)

    def ours(
        self, step: str, *, cores: list[int] | None = None, scratch: bool = True, keep: str = "", **given: Any
    ) -> Found:
        """A step of the rooms, on the last core if none is named, in a store that goes (or is `keep`)."""
        cores = cores or self.cores[-1:]
        place = self.folder / (keep or f"ours-{cores[0]}")
        place.mkdir()
        more = {"folder": str(place), "tokenizer": self.tokenizer} if scratch else {}
        found = run("tests.bench.ours", step, python=sys.executable, cores=cores, **more, **given)
        if not keep:
            shutil.rmtree(place)
        return found

    def theirs(self, step: str, **given: Any) -> Found:
        """A step of another tool, on the same core."""
        return run("tests.bench.anchors", step, python=self.python, cores=self.cores[-1:], **given)


def _every_so_many(file: str, sample_bytes: int) -> pa.Table:
    """Documents from all of a file, as much text as asked for."""
    table = pq.read_table(file, columns=["id", "text"])
    step = max(1, pc.sum(pc.binary_length(table["text"])).as_py() // sample_bytes)
    return table.take(list(range(0, table.num_rows, step)))


def _some_groups(files: list[str], sample_bytes: int) -> pa.Table:
    """Whole groups of near-duplicates, in source order, about as much text as asked for."""
    table = pa.concat_tables([pq.read_table(file) for file in files])
    table = table.filter(pc.greater_equal(table["dup_group"], 0))
    step = max(1, pc.sum(pc.binary_length(table["text"])).as_py() // sample_bytes)
    groups = pa.chunked_array([table["dup_group"].unique()]).combine_chunks()
    chosen = groups.take(pa.array(range(0, len(groups), step)))  # their numbers follow similarity
    return table.filter(pc.is_in(table["dup_group"], value_set=chosen))


def quality(files: list[str], removed: dict[str, list[str]]) -> str:
    """Recall on injected pairs by their true similarity, and removals without a like.

    A pair is found when one of the two goes. A removal is false when its similarity, by the shingles
    themselves, to each document that it is said to resemble is below .55.
    """
    rows = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
    texts = {row["id"]: row["text"] for row in rows}
    told = []
    for low, high in ((0.85, 1.01), (0.77, 0.83)):
        pairs = [
            (row["id"], row["parent"])
            for row in rows
            if row["parent"] in texts and low <= (row["true_j"] or 0) < high
        ]
        hits = sum(one in removed or other in removed for one, other in pairs)
        told.append(
            f"recall {hits / max(1, len(pairs)):.4f} at J {low}-{min(high, 1.0)} ({len(pairs)} pairs)"
        )
    known = {row["id"]: row["parent"] for row in rows if (row["true_j"] or 0) >= 0.55}
    false = 0
    for name, others in removed.items():
        if any(known.get(name) == other or known.get(other) == name for other in others):
            continue
        mine = set(shingle_hashes(texts[name]))
        alike = (set(shingle_hashes(texts[other])) for other in others[:10])
        false += max((len(mine & other) / max(1, len(mine | other)) for other in alike), default=0.0) < 0.55
    return f"{', '.join(told)}; {false} of {len(removed)} removals false"


def rate(found: Found, seconds: str = "cpu") -> float:
    """MB/s; 0 where the step could not run."""
    return found["bytes"] / found[seconds] / 1e6 if seconds in found else 0.0


def line(name: str, found: Found, *, ours: float = 0.0, seconds: str = "cpu", more: str = "") -> None:
    """One row of the table: rate, memory, and how many times as fast we are."""
    if "error" in found:
        print(f"  {name:44s} not measured: {found['error']}", flush=True)
        return
    speed = rate(found, seconds)
    times = f"{ours / speed:7.1f}x" if ours else " " * 8
    print(f"  {name:44s} {speed:8.2f} MB/s {times} {found['rss'] / 1e6:6.0f} MB  {more}", flush=True)


def filters(bench: Bench) -> None:
    """The thirteen repetition metrics."""
    print("repetition (bar: 100x datatrove)")
    mine = bench.ours("repetition", scratch=False, files=bench.edu[:2])
    line("ours, all 13 metrics", mine)
    line(
        "datatrove, stops at the first rule",
        bench.theirs("datatrove_repetition", files=bench.sample),
        ours=rate(mine),
    )


def near_duplicates(bench: Bench) -> None:
    """Signatures, then verdicts against ground truth."""
    print("signatures of texts in memory (bars: 200x datatrove, 5x gaoya and rensa)")
    mine = bench.ours("signing", scratch=False, files=bench.pairs)
    trove = bench.theirs("datatrove_minhash", files=bench.few_pairs, folder=str(bench.folder / "trove"))
    sketch = bench.theirs("datasketch", files=bench.few_pairs, folder=str(bench.folder))
    gaoya = bench.theirs("gaoya", files=bench.pairs[:1])
    rensa = bench.theirs("rensa", files=bench.few_pairs)
    signed = rate(mine)
    line("ours, 128 permutations", mine)
    line("datatrove, 112 permutations", trove, ours=signed, seconds="signed")
    line("gaoya, 125 hashes, into its index", gaoya, ours=signed, seconds="signed")
    line("rensa, 128 slots of our shingles", rensa, ours=signed, seconds="signed")
    print("near-duplicates: signatures and matching (bar: 20x datasketch)")
    whole = bench.ours("near_duplicates", files=bench.pairs)
    if "error" not in whole:
        line("ours, Parquet to Parquet", whole, more=quality(bench.pairs, whole["removed"]))
    else:
        line("ours, Parquet to Parquet", whole)
    for name, found, files in (
        ("datatrove, from memory", trove, bench.few_pairs),
        ("datasketch, Parquet to Parquet", sketch, bench.few_pairs),
        ("gaoya, from memory", gaoya, bench.pairs[:1]),
    ):
        more = quality(files, found["removed"]) if "removed" in found else ""
        line(name, found, ours=rate(whole), more=more)


def tokens(bench: Bench) -> str:
    """Ids, cold and warm; the tokenizer.json that was used."""
    print("tokenization, Parquet to Parquet (bars: 2x HF cold, 8x warm)")
    mine = bench.ours("tokens", keep="tokens", files=bench.edu[:1])
    hf = bench.theirs("hf", folder=str(bench.folder / "tokens"))
    line("ours, a cold encoder", mine, more=f"{rate(mine) / max(rate(hf), 1e-9):.1f}x HF")
    line(
        "ours, the same text again",
        mine,
        seconds="warm",
        more=f"{rate(mine, 'warm') / max(rate(hf), 1e-9):.1f}x HF",
    )
    line(
        "HF encode_batch_fast, from memory",
        hf,
        more=f"ids the same: {hf.get('same')}, {hf.get('documents')} documents",
    )
    return str(bench.folder / "tokens" / "tokenizer.json")


def whole(bench: Bench, tokenizer_json: str) -> None:
    """End to end, by stage; then growing data, and two workers."""
    print("raw text to packed sequences (bar: 40x datatrove; packing: 40 Mtok/s)")
    trove = bench.theirs(
        "datatrove_all", folder=str(bench.folder / "all"), files=bench.sample, tokenizer=tokenizer_json
    )
    found: dict[int, Found] = {}
    for times in (1, 2, 4, 8):
        found[times] = bench.ours("stages", files=bench.edu, shard_bytes=EDU_BYTES, most=times)
        more = ""
        if "stages" in found[times]:
            spent = found[times]["stages"]
            more = f"{found[times]['cpu'] / found[times]['bytes'] * 1e9:.1f} ns/byte; packing "
            floor = found[times]["parquet_tokens"] / found[times]["parquet"]
            more += f"{found[times]['tokens'] / spent['packing'] / 1e6:.0f} Mtok/s "
            more += f"(its Parquet read and written alone: {floor / 1e6:.0f}); "
            more += ", ".join(
                f"{name} {found[times]['bytes'] / seconds / 1e6:.0f}"
                for name, seconds in spent.items()
                if seconds
            )
        line(f"ours, {times} x {EDU_BYTES / 1e6:.0f} MB of text", found[times], more=more)
    line("datatrove: repetition, MinHash, tokens", trove, ours=rate(found[8]))
    if len(bench.cores) > 1:
        two_workers(bench)
    rows = bench.ours("random_rows", files=bench.edu[:1])
    if "rows" in rows:
        print(f"a packed row of 2,000 tokens: {rows['random'] * 1e3:.2f} ms in random order, one group held; "
              f"{rows['ordered'] * 1e3:.3f} ms in order")  # fmt: skip


def two_workers(bench: Bench) -> None:
    """Two workers of a process beside one, and beside two processes: what two cores here can give."""
    given: dict[str, Any] = {"files": bench.edu, "shard_bytes": EDU_BYTES, "most": 8}
    one = bench.ours("stages", **given)
    two = bench.ours("stages", cores=bench.cores[-2:], workers=2, **given)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda core: bench.ours("stages", cores=[core], **given), bench.cores[-2:]))
    print("two cores, by the clock (bar: 1.8x; an idle machine is needed)")
    line("one worker", one, seconds="wall")
    line("two workers", two, seconds="wall", more=f"{rate(two, 'wall') / rate(one, 'wall'):.2f}x")
    rates = [rate(each, "wall") for each in both]
    print(f"  {'two processes, a worker each':44s} {sum(rates):8.2f} MB/s {'':8s} {'':9s}  "
          f"{sum(rates) / rate(one, 'wall'):.2f}x")  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--anchors", default=sys.executable, help="the Python that has the other tools")
    parser.add_argument("--tokenizer", required=True, help="folder of a Llama-type tokenizer")
    parser.add_argument("--sample-bytes", type=int, default=1_500_000, help="text for the slow tools")
    args = parser.parse_args()
    data = Path(os.environ.get("DAPT_TEST_DATA", ROOT.parent / "shared" / "data"))
    cpu = next((row for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row), "")
    print(f"{datetime.date.today()}, {cpu.split(':')[-1].strip()}, {os.cpu_count()} cores, Python "
          f"{platform.python_version()}; MB/s of CPU time, ours / theirs, peak memory")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dapt-bench-") as folder:
        tokenizer = str(Path(args.tokenizer).resolve())
        bench = Bench(data, Path(folder), args.anchors, tokenizer, args.sample_bytes)
        filters(bench)
        near_duplicates(bench)
        whole(bench, tokens(bench))


if __name__ == "__main__":
    main()
