"""Nodes are made once, whole or not at all: whatever kills, fails or races their makers."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.store.errors import ResourceError, SourceError, StoreDamaged
from tasks.store.failure import read_failure
from tasks.store.manifest import NAME, Manifest, stands
from tasks.store.node import Node
from tasks.store.paths import TEMPORARY, Store
from tasks.store.shard import (
    DATA,
    NodeWriter,
    build_node,
    failure_path,
    iter_batches,
    read_table,
    require_disk,
)

ROOT = Path(__file__).parents[2]
NODE = Node(stage="example", version=1, config={"rows": 5000}, inputs={"source": "aa"})
SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int64())])


def write_rows(writer: NodeWriter) -> None:
    with writer.parquet(SCHEMA) as out:
        for at in range(0, 5000, 1000):
            batch = {"id": [str(n) for n in range(at, at + 1000)], "n": range(at, at + 1000)}
            out.write_batch(pa.record_batch(batch, schema=SCHEMA))
    writer.file("notes/of.json", b"{}")
    writer.documents_in = writer.documents_out = 5000


def make(store: Store, build: Callable[[NodeWriter], None] = write_rows) -> tuple[Manifest, bool]:
    return build_node(store, NODE, build, room="tasks.store", shard="00017", how={"workers": 2})


def digests(manifest: Manifest) -> dict[str, str]:
    return {entry.name: entry.sha256 for entry in manifest.files}


def litter(store: Store) -> list[str]:
    assert store.local is not None
    return [str(path) for path in store.local.rglob("*") if TEMPORARY in path.name]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


CHILDREN = """
import os, resource, signal, sys, time
sys.path.insert(0, sys.argv[1])
import pyarrow as pa
import tasks.store.shard as shard
from tasks.store import paths
from tasks.store.node import Node

NODE = Node(stage="example", version=1, config={"rows": 5000}, inputs={"source": "aa"})
SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int64())])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write_rows(writer, after_first=lambda: None):
    with writer.parquet(SCHEMA) as out:
        for at in range(0, 5000, 1000):
            batch = {"id": [str(n) for n in range(at, at + 1000)], "n": range(at, at + 1000)}
            out.write_batch(pa.record_batch(batch, schema=SCHEMA))
            after_first()
    writer.file("notes/of.json", b"{}")
    writer.documents_in = writer.documents_out = 5000

def run(what, root):
    build = write_rows
    if what == "while writing":
        build = lambda writer: write_rows(writer, die)
    elif what == "between two files":
        moved = paths.replace_durably
        paths.replace_durably = lambda a, b: die() if "of.json" in b.name else moved(a, b)
    elif what == "before the manifest":
        shard.write_manifest = die
    elif what == "while the manifest is written":
        moved = paths.replace_durably
        paths.replace_durably = lambda a, b: die() if b.name == "manifest.json" else moved(a, b)
    elif what == "disk full":  # a limit on the size of files stands in for it
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    elif what == "race":
        build = lambda writer: (time.sleep(0.2), write_rows(writer))
    _, made = shard.build_node(paths.Store(root), NODE, build, room="tasks.store", shard="00017")
    return 10 if made else 11

children = []
for word in sys.argv[2:]:
    what, root = word.split("=", 1)
    child = os.fork()
    if not child:
        try:
            os._exit(run(what, root))
        except OSError as err:
            print(err, flush=True)
            os._exit(12)
    children.append(child)
print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
"""Forks a maker for each `what=store`, and prints how they ended."""

KILLED = ["while writing", "between two files", "before the manifest", "while the manifest is written"]


@dataclass(frozen=True)
class Made:
    """What makers in processes of their own left: their stores, and how each ended."""

    folder: Path
    ended: dict[str, list[int]]

    def store(self, what: str) -> Store:
        return Store(str(self.folder / what))


@pytest.fixture(scope="module")
def makers(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One interpreter, many forks: importing pyarrow is what costs."""
    folder = tmp_path_factory.mktemp("makers")
    whats = [*KILLED, "disk full", "race", "race", "race"]
    words = [sys.executable, "-c", CHILDREN, str(ROOT), *(f"{what}={folder / what}" for what in whats)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ended: dict[str, list[int]] = {what: [] for what in whats}
    for what, code in zip(whats, done.stdout.splitlines()[-1].split(), strict=True):
        ended[what].append(int(code))
    return Made(folder, ended)


@pytest.mark.parametrize("moment", KILLED)
@pytest.mark.slow
def test_a_killed_maker_leaves_nothing_that_is_taken_for_whole(
    makers: Made, moment: str, tmp_path: Path
) -> None:
    store = makers.store(moment)
    assert makers.ended[moment] == [-9]
    assert store.size(f"{NODE.path}/.lock") is not None
    assert stands(store, NODE.path) is None
    with pytest.raises(StoreDamaged):
        read_table(store, NODE.path)
    manifest, made = make(store)
    assert made
    assert digests(manifest) == digests(make(Store(str(tmp_path)))[0])
    assert litter(store) == []


def test_a_full_disk_fails_cleanly_and_is_made_good(makers: Made) -> None:
    store = makers.store("disk full")
    assert makers.ended["disk full"] == [12]
    assert stands(store, NODE.path) is None
    assert "File too large" in json.loads(store.read(failure_path(NODE)))["error"]
    assert litter(store) == []
    assert make(store)[1]


def test_of_three_makers_at_once_one_makes_and_all_have_it(makers: Made) -> None:
    assert sorted(makers.ended["race"]) == [10, 11, 11]


def test_a_node_is_made_once_and_read_whole(store: Store) -> None:
    manifest, made = make(store)
    assert made
    assert make(store) == (manifest, False)
    assert manifest.how == {"workers": 2}
    assert manifest.documents_in == manifest.documents_out == 5000
    assert [(f.name, f.rows) for f in manifest.files] == [(DATA, 5000), ("notes/of.json", None)]
    assert manifest.peak_rss_bytes > 0
    assert manifest.drift
    table = read_table(store, NODE.path, columns=["n"])
    assert table["n"].to_pylist() == list(range(5000))
    batches = list(iter_batches(store, NODE.path, rows=700))
    assert max(batch.num_rows for batch in batches) <= 700
    assert pa.Table.from_batches(batches).equals(read_table(store, NODE.path))


def test_the_same_node_has_the_same_bytes_in_another_store(store: Store, tmp_path: Path) -> None:
    assert digests(make(store)[0]) == digests(make(Store(str(tmp_path / "another")))[0])


def test_a_failure_stands_until_it_is_made_good(store: Store) -> None:
    def fail(writer: NodeWriter) -> None:
        with writer.parquet(SCHEMA) as out:
            out.write_batch(pa.record_batch({"id": ["a"], "n": [1]}, schema=SCHEMA))
            raise SourceError("/data/a.parquet: cannot be read")

    with pytest.raises(SourceError):
        make(store, fail)
    told = read_failure(store, NODE)
    assert told is not None
    assert (told["stage"], told["shard"], told["fingerprint"]) == ("example", "00017", NODE.fingerprint)
    assert told["error"] == "/data/a.parquet: cannot be read"
    assert litter(store) == []
    assert stands(store, NODE.path) is None
    make(store)
    assert read_failure(store, NODE) is None


def test_an_error_of_ours_is_recorded_with_its_kind(store: Store) -> None:
    def fail(writer: NodeWriter) -> None:
        raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError):
        make(store, fail)
    assert json.loads(store.read(failure_path(NODE)))["error"] == "ZeroDivisionError: by zero"


def test_an_interrupted_maker_is_no_failure(store: Store) -> None:
    def interrupted(writer: NodeWriter) -> None:
        writer.file("half", b"1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(store, interrupted)
    assert store.size(failure_path(NODE)) is None
    assert litter(store) == []


def test_rows_that_do_not_fit_the_schema_are_refused(store: Store) -> None:
    def misfit(writer: NodeWriter) -> None:
        with writer.parquet(SCHEMA) as out:
            out.write_table(pa.table({"id": [1], "n": ["a"]}))

    with pytest.raises(ValueError, match="schema"):
        make(store, misfit)


@pytest.mark.parametrize("how", ["flip", "truncate", "remove", "break the manifest"])
def test_damage_met_while_reading_is_told_set_aside_and_rebuilt(store: Store, how: str) -> None:
    whole, _ = make(store)
    file = store.local_path(f"{NODE.path}/{DATA}")
    data = file.read_bytes()
    if how == "flip":
        file.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    elif how == "truncate":
        file.write_bytes(data[:-1])
    elif how == "remove":
        file.unlink()
    else:
        store.local_path(f"{NODE.path}/{NAME}").write_text('{"stage"')
    with pytest.raises(StoreDamaged) as told:
        read_table(store, NODE.path)
    assert str(store.local_path(NODE.path)) in told.value.path
    assert store.size(f"{NODE.path}/{NAME}") is None, "the manifest was set aside"
    manifest, made = make(store)
    assert made
    assert digests(manifest) == digests(whole)
    assert read_table(store, NODE.path).num_rows == 5000


def test_a_folder_is_taken_with_all_in_it(store: Store, tmp_path: Path) -> None:
    def model(writer: NodeWriter) -> None:
        folder = tmp_path / "model"
        (folder / "deep").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "deep" / "weights").write_bytes(b"123")
        writer.folder_of(folder)

    manifest, _ = make(store, model)
    assert [f.name for f in manifest.files] == ["config.json", "deep/weights"]
    assert store.read(f"{NODE.path}/deep/weights") == b"123"


def test_too_little_disk_is_told_with_both_numbers(store: Store) -> None:
    require_disk(store, 1000)
    with pytest.raises(ResourceError, match=r"GB free, about 1000000000\.0 GB are needed"):
        require_disk(store, 10**18)
