"""Looking ahead in a second process tells what looking in one does, whatever became of it."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from flows import standing
from flows.outcome import save_record, walks_of
from flows.plan import make_plan
from flows.standing import reading_ahead
from tasks.store.paths import Store
from tests.flows.world import World


@pytest.fixture
def recorded(standing: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A recipe of a few shards that stand, whose record counts as one of thousands."""
    save_record(standing.resolve())
    monkeypatch.setenv("DAPT_STORE", str(standing.store))
    monkeypatch.setattr("flows.standing.MANY_BYTES", 1)
    monkeypatch.setattr("flows.standing.threading.active_count", lambda: 1)  # a pool of pytest's may be idle
    return standing


def test_a_plan_that_looked_ahead_is_the_plan_of_one_process(recorded: World) -> None:
    alone = make_plan(recorded.resolve())
    with reading_ahead([str(recorded.recipe)]):
        assert standing._ahead, "no process looks ahead: the test would compare a plan with itself"
        ahead = make_plan(recorded.resolve())
    assert ahead == alone
    assert ahead["totals"]["hit"] > 0


def test_what_is_damaged_is_seen_by_who_looks_ahead(recorded: World) -> None:
    first = recorded.resolve().chains["domain"].shards[0].nodes["filtering"]
    file = recorded.store / first.path / "data.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with reading_ahead([str(recorded.recipe)]):
        walked = walks_of(recorded.resolve())["domain"]
    assert walked.used == []


def test_of_another_recipe_only_what_it_stands_on_counts(recorded: World) -> None:
    with reading_ahead([str(recorded.recipe)]):
        plan = make_plan(recorded.resolve("filtering.min_lines=7"))
    states = {(node["stage"], node["state"]) for node in plan["nodes"]}
    assert ("download", "HIT") in states
    assert ("filtering", "HIT") not in states


def test_a_process_that_died_ahead_costs_time_alone(
    recorded: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone, here = make_plan(recorded.resolve()), os.getpid()
    told = tmp_path / "died"

    def die(*_: object) -> list[str]:
        assert os.getpid() != here
        told.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    monkeypatch.setattr("flows.standing._read_paths", die)
    with reading_ahead([str(recorded.recipe)]):
        assert make_plan(recorded.resolve()) == alone
    assert told.exists()


@pytest.mark.parametrize(
    "words", [[], ["none.toml"], ["--set", "name=other"], ["RECIPE", "--set", "name=other"]]
)
def test_no_process_looks_ahead_for_a_recipe_without_a_record(recorded: World, words: list[str]) -> None:
    given = [str(recorded.recipe) if word == "RECIPE" else word for word in words]
    with reading_ahead(given):
        assert not standing._ahead


def test_nothing_is_looked_at_ahead_of_another_store(recorded: World, tmp_path: Path) -> None:
    with reading_ahead([str(recorded.recipe)]):
        other = replace(recorded.resolve(), store=Store(str(tmp_path / "store")))
        assert walks_of(other)["domain"].used == []
