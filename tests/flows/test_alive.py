"""A run that was killed beside a living server is closed by the next one on its store; a live one is not."""

import os
import signal

import pytest

from tests.flows.commands import Api, await_that, dapt, made, started
from tests.flows.world import World

pytestmark = pytest.mark.flow


def test_the_next_run_closes_one_that_was_killed_and_what_it_called(world: World, api: Api) -> None:
    words, here = ["run", "recipe.toml", "--until", "corpus", "--set"], {"PREFECT_API_URL": api.url}
    with started(world, *words, "name=dead", SLOW="dedup 300", **here) as process:
        await_that(lambda: made(world, "signatures") >= 1, "the run is under way")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    names = ("adapt dead", "domain corpus of dead")
    assert [api.flow_runs(name)[name] for name in names] == [["Running"], ["Running"]]
    assert len(list(world.store.glob("runs/*.json"))) == 1
    done = dapt(world, *words, "name=next", **here)
    assert done.code == 0, done.err
    assert [api.flow_runs(name)[name] for name in names] == [["Crashed"], ["Crashed"]]
    assert list(world.store.glob("runs/*")) == []


def test_a_run_at_work_is_left_alone(world: World, api: Api) -> None:
    words, here = ["run", "recipe.toml", "--until", "corpus", "--set"], {"PREFECT_API_URL": api.url}
    with started(world, *words, "name=alive", SLOW="dedup 300", **here):
        await_that(lambda: made(world, "signatures") >= 1, "the run is under way")
        done = dapt(world, *words, "name=other", "--set", "filtering.min_lines=2", **here)
        assert done.code == 0, done.err
        assert api.flow_runs("adapt alive")["adapt alive"] == ["Running"]
        assert len(list(world.store.glob("runs/*.json"))) == 1
