"""Promise: kill -9 anything at any time and run again: the bytes are those of a run that nobody disturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.contracts.conftest import Grown
from tests.contracts.world import (
    ROOT,
    SMALL,
    STAGES,
    World,
    conserve,
    corpus_rows,
    processes_with,
    snapshot,
)

pytestmark = pytest.mark.flow

PLACES = [f"{stage} {place}" for stage in STAGES for place in ("before", "between")]


@pytest.fixture(scope="module")
def killed(world: World, grown: Grown) -> Path:
    """A store on which the small budget was run again and again, each run killed a little further on."""
    store = world.folder / "killed"
    recipe = world.recipe("grown", at="killed", budgets=[SMALL])
    words = [sys.executable, "-m", "tests.contracts.dapt", *PLACES, "--", "run", str(recipe)]
    done = subprocess.run(
        [*words, "--until", "corpus"],
        cwd=ROOT,
        env=os.environ | world.environment(store, DAPT_WORKERS="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ends = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    assert ends == dict.fromkeys(PLACES, str(-signal.SIGKILL)), done.stderr
    return store


def test_a_run_after_twelve_kills_makes_the_same_bytes(world: World, grown: Grown, killed: Path) -> None:
    before = snapshot(killed)
    done = world.run(killed, world.recipe("grown", at="killed", budgets=[SMALL]))
    after = snapshot(killed)
    assert done.computed["packing"] > 0
    assert before.items() <= after.items()
    assert after.items() >= grown.small_snapshot.items()
    milestone = done.body["milestones"][0]
    assert corpus_rows(killed, milestone).equals(corpus_rows(grown.store, grown.small.body["milestones"][0]))
    assert done.body["milestones"][0]["sequences"] == grown.small.body["milestones"][0]["sequences"]


def test_nothing_half_made_stays(world: World, killed: Path) -> None:
    conserve(killed)
    assert not list(killed.rglob("*.tmp-*"))
    verified = world.call(killed, "verify", world.recipe("grown", at="killed", budgets=[SMALL]))
    assert (verified.code, verified.body["damaged"]) == (0, [])


def test_no_process_outlives_a_killed_run_and_prefects_history_is_not_needed(
    offline_world: World, grown: Grown, tmp_path: Path
) -> None:
    """With a server of its own, killed from outside while it filters; then run on without the history."""
    store, recipe = tmp_path / "store", offline_world.recipe("grown", at="orphans", budgets=[SMALL])
    with offline_world.start(store, "run", recipe, "--until", "corpus") as process:
        deadline = time.monotonic() + 240
        while not list((store / "filtering").glob("*/*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 60
    while left := processes_with(str(store)):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert (store / "prefect" / "prefect.db").exists()
    (store / "prefect").rename(tmp_path / "gone")
    standing = len(snapshot(store, "download"))
    done = offline_world.call_process(store, "run", recipe, "--until", "corpus")
    assert done.code == 0, done.stderr
    assert done.body["stages"]["download"]["hit"] == standing
    assert snapshot(store).items() >= grown.small_snapshot.items()
    (store / "prefect").rename(tmp_path / "gone again")
    again = offline_world.run(store, recipe)
    assert again.computed == {}
    assert not (store / "prefect").exists(), "a run with nothing to do starts no server"
