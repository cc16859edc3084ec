"""Death in every place: one run that is killed again and again ends as if nothing had happened.

In turn: the server dies and comes back; the GPU worker dies under the training; the run is cancelled, its
training with it, though no worker has that any more; the same work is wanted again; all its processes and
both workers are killed at once. Nobody presses a button after that: the automations find it out.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deployments.catalog import MAX_REVIVALS
from tasks.store.json import JSON
from tests.deployments.team import Team, a_team
from tests.flows.commands import await_that, processes_of
from tests.flows.world import World, make_world

pytestmark = pytest.mark.flow

OVERRIDES = (
    "name=dies",
    'budget.milestones=["5K"]',
    "held_out.fraction=0",
    "training.epochs=60",
    "training.checkpoint_every=40",
)


@dataclass
class Story:
    """What was seen."""

    team: Team
    after_server: tuple[int, int]
    """Steps at the newest checkpoint before the server's death, and some time after its return."""
    after_worker: tuple[int, int]
    cancelled: list[JSON]
    """The run and its training."""
    left_after_cancel: list[int]
    left_after_all: list[int]
    """Training processes."""
    killed_at: int
    """Steps at the newest checkpoint when everything was killed."""
    last: JSON
    manifest: JSON


def newest_step(world: World) -> int:
    """Steps of the newest checkpoint."""
    found = [path.parent.name for path in world.store.glob("work/training/*/step-*/manifest.json")]
    return max((int(name.removeprefix("step-")) for name in found), default=0)


def trainers(world: World) -> list[int]:
    return processes_of(world.store / "work" / "training")


def let(world: World, what: signal.Signals) -> None:
    """Have the training stand still or go on: how fast a machine trains is not what is tested."""
    for pid in trainers(world):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def some_steps(world: World) -> tuple[int, int]:
    """The newest checkpoint's steps, and those of a later one that the training is let make."""
    before = newest_step(world)
    let(world, signal.SIGCONT)
    await_that(lambda: newest_step(world) > before, f"a checkpoint behind step {before}", 600)
    let(world, signal.SIGSTOP)
    return before, newest_step(world)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    world = make_world(tmp_path_factory.mktemp("death") / "world")
    with a_team(world) as team:
        team.deploy(*OVERRIDES)
        for pool in ("cpu", "gpu"):
            team.start_worker(pool)
        first = team.start_run("dies")
        await_that(lambda: newest_step(world) > 0, "the training is under way", 600)
        let(world, signal.SIGSTOP)
        team.kill("server")
        time.sleep(2)
        team.start_server()
        after_server = some_steps(world)
        team.kill("gpu")
        after_worker = some_steps(world)
        team.ask(f"flow_runs/{first}/set_state", {"state": {"type": "CANCELLING"}})
        team.await_state(first, "Cancelled")
        [child] = team.runs("train dies 5K")
        await_that(lambda: not trainers(world), "the trainers are gone", 300)
        team.await_state(child["id"], "Cancelled")
        cancelled = [team.run(first), team.run(child["id"])]
        left_after_cancel = trainers(world)
        team.start_worker("gpu")
        second = team.start_run("dies")
        killed_at = some_steps(world)[1]
        for name in ("cpu", "gpu"):
            team.kill(name, flows=True)
        time.sleep(2)
        left_after_all = trainers(world)
        for pool in ("cpu", "gpu"):
            team.start_worker(pool)
        last = team.await_state(second, "Completed", "Failed", "Cancelled")
        trained = [json.loads(path.read_text()) for path in world.store.glob("training/*/*/manifest.json")]
        [manifest] = [found for found in trained if found["details"]["steps"]]
        yield Story(
            team,
            after_server,
            after_worker,
            cancelled,
            left_after_cancel,
            left_after_all,
            killed_at,
            last,
            manifest,
        )


def test_a_server_that_comes_back_finds_the_training_further_on(story: Story) -> None:
    before, after = story.after_server
    assert after > before


def test_a_training_outlives_its_worker(story: Story) -> None:
    before, after = story.after_worker
    assert after > before


def test_a_cancelled_run_takes_its_training_with_it_though_that_lost_its_worker(story: Story) -> None:
    assert [run["state_name"] for run in story.cancelled] == ["Cancelled", "Cancelled"]
    assert story.left_after_cancel == []


def test_killed_all_at_once_nothing_is_left_running(story: Story) -> None:
    assert story.left_after_all == []


def test_what_was_killed_is_found_dead_and_ends_by_itself(story: Story) -> None:
    assert story.last["state_name"] == "Completed"
    assert 2 <= story.last["run_count"] <= 1 + MAX_REVIVALS
    states = story.team.states(story.last["id"])
    assert [name for name in states if name in ("Crashed", "AwaitingRetry")][:2] == [
        "Crashed",
        "AwaitingRetry",
    ]


def test_the_training_went_on_from_its_last_checkpoint(story: Story) -> None:
    assert story.killed_at > 0
    assert story.manifest["how"]["resumed_from_step"] == story.killed_at


def test_only_the_cancelled_training_was_followed_by_a_new_run(story: Story) -> None:
    assert [run["state_name"] for run in story.team.runs("train dies 5K")] == ["Cancelled", "Completed"]


def test_no_run_reads_running_in_the_end(story: Story) -> None:
    body = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED", "CANCELLING"]}}}}

    def unfinished() -> list[tuple[str, str, str]]:
        found = story.team.ask("flow_runs/filter", body)
        return [(run["name"], run["state_name"], run["created"]) for run in found]

    with contextlib.suppress(AssertionError):  # what is left is told below
        await_that(lambda: not unfinished(), "every run has ended", 60, every=1)
    assert unfinished() == []
