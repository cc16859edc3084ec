"""A store's local server: shared by its runs, gone with the last of them, its history whole."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flows.commands import Api, await_that, made, processes_of, served, started
from tests.flows.world import World

pytestmark = pytest.mark.flow


@dataclass(frozen=True)
class History:
    """Two runs on one store at once, one killed, then what the server tells of them afterwards."""

    addresses: set[str]
    """That the runs named."""
    outlived: bool
    """Whether a server process lived on after the last run."""
    code: int
    api: Api
    nodes: dict[str, int]
    """That the run which ended made, and it alone, by stage."""


def is_free(lock: Path) -> bool:
    """Whether nobody holds a lock."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def address(process: subprocess.Popen[str]) -> str:
    """What a run tells of where to watch it."""
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.fullmatch(r"watch it at (http://127\.0\.0\.1:\d+)\n", line):
            return match[1]
    pytest.fail("the run did not tell where to watch it")


@pytest.fixture(scope="module")
def history(given: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    world = World(shutil.copytree(given.folder, tmp_path_factory.mktemp("server") / "world"))
    words = ["run", "recipe.toml", "--until", "corpus", "--set"]
    server = world.store / "prefect" / "server.lock"
    with started(world, *words, "name=killed", "--set", "filtering.min_lines=2", SLOW="dedup 300") as killed:
        addresses = {address(killed)}
        with started(world, *words, "name=ends", SLOW="dedup 1") as ends:
            addresses.add(address(ends))
            await_that(lambda: made(world, "packing") >= 1, "the second run is well under way")
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
            assert ends.wait(90) == 0
            code = ends.returncode
    await_that(lambda: is_free(server), "the server is gone with its last run", 10)
    outlived = bool(processes_of(world.store / "prefect"))
    nodes = {stage: made(world, stage) for stage in ("dedup", "tokenization", "packing", "corpus")}
    with served(world) as api:
        yield History(addresses, outlived, code, api, nodes)


def test_two_runs_at_once_share_one_server(history: History) -> None:
    assert len(history.addresses) == 1


def test_the_server_ends_with_its_last_run_also_when_the_one_that_started_it_was_killed(
    history: History,
) -> None:
    assert history.code == 0
    assert not history.outlived


def test_every_task_run_is_recorded_and_the_marker_is_not_seen(history: History) -> None:
    runs = history.api.task_runs("domain corpus of ends") + history.api.task_runs("general corpus of ends")
    assert {run["state_name"] for run in runs} <= {"Completed", "Cached"}
    for stage, count in history.nodes.items():
        assert sum(run["name"].startswith(f"{stage} ") for run in runs) == count > 0
    assert [name for name in history.api.task_runs() if name["name"].startswith("flush")] == []


def test_a_run_that_was_killed_reads_crashed_when_the_next_server_starts(history: History) -> None:
    runs = history.api.flow_runs()
    assert runs["adapt killed"] == ["Crashed"]
    assert runs["domain corpus of killed"] == ["Crashed"]
    assert runs["adapt ends"] == ["Completed"]


def test_flow_runs_carry_their_recipe_as_a_tag(history: History) -> None:
    found = {run["name"]: run["tags"] for run in history.api.ask("flow_runs/filter")}
    assert {"dapt", "recipe:ends"} <= set(found["adapt ends"])
