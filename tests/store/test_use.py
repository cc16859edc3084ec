"""Who uses a store is known while it lives, and a removal and a run that begins see each other."""

import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import pytest

from tasks.store import lock
from tasks.store.lock import is_locked, locked
from tasks.store.paths import Store
from tasks.store.use import live, removing, using

ROOT = Path(__file__).parents[2]
RUN = """
import sys, time
sys.path.insert(0, sys.argv[1])
from tasks.store.paths import Store
from tasks.store.use import using
with using(Store(sys.argv[2]), "textbooks"):
    print("runs", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lock, "WAIT_S", 0.01)
    monkeypatch.setattr("tasks.store.use.WAIT_S", 0.01)
    if request.param == "local":
        return Store(str(tmp_path))
    fsspec.filesystem("memory").store.clear()
    return Store(f"memory://{tmp_path.name}")


def test_a_user_is_known_while_it_lives_and_leaves_nothing(store: Store) -> None:
    assert live(store) == []
    with using(store, "one"), using(store, "other"):
        assert sorted(entry["recipe"] for entry in live(store)) == ["one", "other"]
        assert all(entry["started"] for entry in live(store))
    assert live(store) == []
    assert store.names("in-use") == []


def test_a_user_waits_for_a_removal_and_a_removal_knows_of_users(store: Store) -> None:
    began = threading.Event()

    def run() -> None:
        with using(store, "late"):
            began.set()

    with using(store, "early"), removing(store) as runs:
        assert [entry["recipe"] for entry in runs] == ["early"]
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert not began.wait(0.2)
    assert began.wait(10)
    thread.join()


def test_whether_a_node_is_being_made_can_be_asked(store: Store) -> None:
    assert not is_locked(store, "node")
    with locked(store, "node"):
        assert is_locked(store, "node")
    assert not is_locked(store, "node")


@pytest.mark.slow
def test_a_killed_user_is_no_user(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    words = [sys.executable, "-c", RUN, str(ROOT), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "runs\n"
        assert [entry["recipe"] for entry in live(store)] == ["textbooks"]
        run.kill()
        run.wait()
    assert live(store) == []
    assert len(store.names("in-use")) == 1, "its entry is left for who sweeps"
