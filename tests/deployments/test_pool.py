"""A recipe on a team's server: a budget that changes, a shard that fails, work on the GPU pool."""

from dataclasses import dataclass

import pytest

from flows.chain import DOMAIN
from tasks.store.json import JSON
from tasks.store.manifest import stands
from tests.deployments.team import Team
from tests.flows.commands import await_that, dapt, made
from tests.flows.world import documents, write_jsonl

pytestmark = pytest.mark.flow

ONLY_TRAINING = ("held_out.fraction=0", "training.epochs=2")


@dataclass(frozen=True)
class Grown:
    """`grows`, run at 5K; then its variable was set to 5K,11K and at once to 5K,11K,15K."""

    first: JSON
    runs: list[JSON]
    """Of adapt, oldest first."""
    trained: dict[str, list[JSON]]
    """Runs of train-model by milestone."""


def state_names(team: Team) -> list[str]:
    return [run["state_name"] for run in team.runs("adapt grows")]


@pytest.fixture(scope="module")
def grown(team: Team) -> Grown:
    team.deploy("name=grows", 'budget.milestones=["5K"]', *ONLY_TRAINING)
    first = team.await_state(team.start_run("grows"), "Completed")
    for value in ("5K,11K", "5K,11K,15K"):  # as somebody edits it in the UI
        team.set_budget("grows", value)
    states = ["Completed", "Completed", "NothingToDo"]
    await_that(
        lambda: [r["state_name"] for r in team.runs("adapt grows")] == states, "two more runs", 600, every=1
    )
    trained = {label: team.runs(f"train grows {label}") for label in ("base", "5K", "11K", "15K")}
    return Grown(first, team.runs("adapt grows"), trained)


def test_each_change_of_the_budget_starts_a_run_and_one_sees_both(grown: Grown) -> None:
    assert [run["state_name"] for run in grown.runs] == ["Completed", "Completed", "NothingToDo"]
    assert "nothing to do: all" in grown.runs[2]["state"]["message"]
    assert "5K,11K,15K" in grown.runs[2]["state"]["message"]


def test_two_changes_in_a_row_run_one_after_the_other(grown: Grown) -> None:
    _, second, third = grown.runs
    assert second["end_time"] <= third["start_time"]


def test_each_model_is_trained_once_by_a_run_on_the_gpu_pool(grown: Grown) -> None:
    for label, runs in grown.trained.items():
        assert [run["state_name"] for run in runs] == ["Completed"], label
        assert (runs[0]["work_pool_name"], runs[0]["work_queue_name"]) == ("gpu", "training")
        assert set(runs[0]["tags"]) >= {"dapt", "recipe:grows", "stage:training"}


def test_they_are_children_of_the_run_that_wanted_them(team: Team, grown: Grown) -> None:
    def parent(run: JSON) -> str:
        body = {"task_runs": {"id": {"any_": [run["parent_task_run_id"]]}}}
        [task] = team.ask("task_runs/filter", body)
        return str(task["flow_run_id"])

    assert parent(grown.trained["5K"][0]) == grown.first["id"]
    assert {parent(grown.trained[label][0]) for label in ("11K", "15K")} == {grown.runs[1]["id"]}


def test_a_budget_that_shrank_is_explained_and_nothing_is_deleted(team: Team, grown: Grown) -> None:
    before = {stage: made(team.world, stage) for stage in ("packing", "corpus", "training")}
    team.set_budget("grows", "5K")
    await_that(lambda: len(team.runs("adapt grows")) == 4, "the trigger starts a run", 120, every=1)
    run = team.await_state(team.runs("adapt grows")[-1]["id"], "NothingToDo")
    assert (
        "the budget was 5K,11K,15K before and is smaller now: nothing is deleted" in run["state"]["message"]
    )
    assert {stage: made(team.world, stage) for stage in before} == before


def test_dapt_run_on_that_server_goes_by_its_budget_and_finds_all_standing(team: Team, grown: Grown) -> None:
    words = [word for override in ("name=grows", *ONLY_TRAINING) for word in ("--set", override)]
    team.set_budget("grows", "5K,11K,15K")
    done = dapt(team.world, "run", "recipe.toml", *words, "--json", PREFECT_API_URL=team.url, DAPT_POOL="gpu")
    assert done.code == 0, done.err
    assert "the budget is 5K,11K,15K (Prefect variable dapt_grows_budget)" in done.err
    assert [milestone["budget"] for milestone in done.told["milestones"]] == [5000, 11000, 15000]
    assert {
        stage: tally["computed"] for stage, tally in done.told["stages"].items() if tally["computed"]
    } == {}


@dataclass(frozen=True)
class Broken:
    """A run whose shard 00003 cannot be filtered, then a Retry of the same run."""

    failed: JSON
    status: JSON
    before: dict[str, set[str]]
    """Shards that stood after the failure, by stage."""
    retried: JSON
    after: dict[str, set[str]]
    tries: list[JSON]
    """Task runs of that shard's filtering."""


def standing(team: Team, *overrides: str) -> dict[str, set[str]]:
    """The domain's shards that stand, by stage."""
    resolved = team.world.resolve(*overrides)
    found: dict[str, set[str]] = {}
    for shard in resolved.chains[DOMAIN].shards:
        for stage, node in shard.nodes.items():
            if stands(resolved.store, node.path):
                found.setdefault(stage, set()).add(shard.name)
    return found


@pytest.fixture(scope="module")
def broken(team: Team) -> Broken:
    overrides = ("name=breaks", 'budget.milestones=["5K","28K"]', "filtering.min_lines=2", *ONLY_TRAINING)
    for number in range(4, 8):
        write_jsonl(team.world.folder / "domain" / f"{number}.jsonl", documents(1000 + 100 * number, 20))
    node = team.world.resolve(*overrides).chains[DOMAIN].shards[3].nodes["filtering"]
    in_the_way = team.world.store / node.path
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file where a folder is to be")
    team.deploy(*overrides)
    run = team.start_run("breaks", until="corpus")
    failed = team.await_state(run, "Failed", "Completed")
    words = [word for override in overrides for word in ("--set", override)]
    status = dapt(team.world, "status", "recipe.toml", *words, "--json", PREFECT_API_URL=team.url).told
    before = standing(team, *overrides)
    in_the_way.unlink()
    body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}  # the UI's Retry button
    team.ask(f"flow_runs/{run}/set_state", body)
    await_that(lambda: team.run(run)["run_count"] == 2, "the retry starts", 120, every=1)
    retried = team.await_state(run, "Completed", "Failed")
    tasks = team.task_runs("domain corpus of breaks")
    tries = [task for task in tasks if task["name"] == "filtering shard 00003"]
    return Broken(failed, status, before, retried, standing(team, *overrides), tries)


def test_a_failed_shard_is_named_with_its_reason_and_was_retried_with_backoff(broken: Broken) -> None:
    assert broken.failed["state_name"] == "Failed"
    assert "filtering shard 00003: FileExistsError" in broken.failed["state"]["message"]
    assert max(task["run_count"] for task in broken.tries) == 4


def test_the_others_finish_and_those_behind_it_wait(broken: Broken) -> None:
    fetched = broken.before["download"]
    assert len(fetched) > 4
    assert broken.before["filtering"] == broken.before["signatures"] == fetched - {"00003"}
    for stage in ("dedup", "tokenization", "packing"):
        assert broken.before[stage] == {f"{number:05d}" for number in range(3)}


def test_status_lists_it_with_its_cause_and_a_command_for_its_log(broken: Broken) -> None:
    [failure] = broken.status["failed"]
    assert (failure["stage"], failure["shard"]) == ("filtering", "00003")
    assert failure["error"].startswith("FileExistsError")
    [flow_run] = [task["flow_run_id"] for task in broken.tries if task["state_name"] == "Failed"]
    assert failure["log"] == f"prefect flow-run logs {flow_run}"


def test_retry_redoes_exactly_it_and_those_that_waited(broken: Broken) -> None:
    assert broken.retried["id"] == broken.failed["id"]
    assert broken.retried["state_name"] == "Completed"
    assert broken.after["download"] == broken.before["download"]
    assert broken.after["filtering"] - broken.before["filtering"] == {"00003"}
    assert broken.after["packing"] == broken.after["dedup"] == broken.after["download"]
