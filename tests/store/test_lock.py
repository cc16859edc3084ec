"""One holder at a time; a dead one holds nothing."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from tasks.store import lock
from tasks.store.lock import locked
from tasks.store.paths import Store

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from tasks.store.lock import locked
from tasks.store.paths import Store
with locked(Store(sys.argv[2]), "node"):
    print("held", flush=True)
    time.sleep(60)
"""


def second_holder(store: Store) -> tuple[threading.Thread, list[float]]:
    got: list[float] = []

    def wait() -> None:
        with locked(store, "node"):
            got.append(time.monotonic())

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread, got


def test_a_second_holder_in_the_same_process_waits(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with locked(store, "node"):
        thread, got = second_holder(store)
        thread.join(0.2)
        assert got == []
    thread.join(5)
    assert len(got) == 1


def test_other_nodes_are_not_held_up(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with locked(store, "one"), locked(store, "other"):
        pass


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(ROOT), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        thread, got = second_holder(Store(str(tmp_path)))
        thread.join(0.2)
        assert got == []
        holder.kill()
        thread.join(5)
    assert len(got) == 1


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lock, "LEASE_S", 0.3)
    monkeypatch.setattr(lock, "WAIT_S", 0.05)
    fsspec.filesystem("memory").store.clear()
    return Store(f"memory://{tmp_path.name}")


@pytest.mark.slow
def test_a_lease_is_renewed_while_it_is_held_and_gone_after(remote: Store) -> None:
    with locked(remote, "node"):
        thread, got = second_holder(remote)
        thread.join(0.7)
        assert got == [], "the lease ran out while it was held"
    thread.join(5)
    assert len(got) == 1
    assert remote.names("node") == []


def test_the_lease_of_a_dead_holder_runs_out(remote: Store) -> None:
    remote.write("node/.lease", json.dumps({"holder": "dead", "until": time.time() + 0.2}).encode())
    began = time.monotonic()
    with locked(remote, "node"):
        assert time.monotonic() - began >= 0.15


@pytest.mark.slow
def test_a_killed_holder_on_this_machine_is_not_waited_for(
    remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run killed and started again would wait a minute for itself."""
    monkeypatch.setattr(lock, "LEASE_S", 3600.0)
    said = "import json, sys; sys.path.insert(0, sys.argv[1]); from tasks.store.lock import _this_process\n"
    said += "print(json.dumps(_this_process()), flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", said, str(ROOT)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        lease = {"holder": "other", "until": time.time() + 3600, **json.loads(holder.stdout.readline())}
        remote.write("node/.lease", json.dumps(lease).encode())
        thread, got = second_holder(remote)
        thread.join(0.3)
        assert got == [], "it lives"
        holder.kill()
        thread.join(30)
    assert len(got) == 1


def test_a_holder_on_another_machine_is_waited_for(remote: Store) -> None:
    gone = {"machine": "another", "pid": 1, "began": "0"}
    remote.write("node/.lease", json.dumps({"holder": "far", "until": time.time() + 0.4, **gone}).encode())
    began = time.monotonic()
    with locked(remote, "node"):
        assert time.monotonic() - began >= 0.3


def test_a_broken_lease_holds_nothing(remote: Store) -> None:
    for broken in (b"", b"{", b"[]", b'{"holder": "x"}'):
        remote.write("node/.lease", broken)
        with locked(remote, "node"):
            pass
