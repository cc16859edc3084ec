"""A recipe on a server: told before it is done, done once, and what users change there stays."""

from collections.abc import Iterator
from itertools import islice, takewhile

import pytest

from deployments.catalog import catalog
from flows.forgetting import FORGOT
from tests.deployments.team import Team, a_team
from tests.flows.commands import dapt, started
from tests.flows.world import ROOT, World, make_world

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A server on which nothing stands yet."""
    with a_team(make_world(tmp_path_factory.mktemp("bare") / "world")) as here:
        yield here


def deploy(team: Team, *words: str) -> dict[str, object]:
    done = dapt(team.world, "deploy", "recipe.toml", "--json", *words, PREFECT_API_URL=team.url)
    assert done.code == 0, done.err
    return done.told


def named(changes: list[dict[str, object]]) -> set[str]:
    return {f"{change['action']} {change['kind']} {change['name']}" for change in changes}


def test_a_run_that_forgot_has_ended_and_is_not_run_again(given_world: World) -> None:
    """Events bear a state's name: unknown to the watch, its end would be taken for silence."""
    items = catalog(given_world.load(), store="/store", pool="gpu", num_gpus=1, cron="")
    triggers = {item.name: item.body["trigger"] for item in items if item.kind == "automation"}
    assert f"prefect.flow-run.{FORGOT}" in triggers["dapt: runs that fell silent"]["expect"]
    assert triggers["dapt: runs that crashed"]["after"] == ["prefect.flow-run.Crashed"]


def test_a_dry_run_tells_all_and_makes_nothing(bare: Team) -> None:
    told = deploy(bare, "--dry-run", "--cron", "0 5 * * *")
    assert named(told["changes"]) >= {
        "create work pool cpu",
        "create work pool gpu",
        "create work queue gpu/training",
        "create variable dapt_tiny_budget",
        "create deployment adapt/tiny",
        "create deployment train-model/tiny",
        "create deployment evaluate-model/tiny",
        "create automation dapt: the budget of tiny changed",
    }
    assert (
        bare.ask("deployments/filter") == bare.ask("work_pools/filter") == bare.ask("variables/filter") == []
    )


def test_applied_twice_the_second_time_finds_nothing_to_do(bare: Team) -> None:
    assert len(bare.deploy(cron="0 5 * * *")) == 11
    assert bare.deploy(cron="0 5 * * *") == []


def test_a_changed_recipe_names_the_field_with_both_values(bare: Team) -> None:
    bare.deploy(cron="0 5 * * *")
    changes = bare.deploy("training.learning_rate=2e-4", cron="0 7 * * *")
    assert named(changes) == {
        f"update deployment {flow}/tiny" for flow in ("adapt", "train-model", "evaluate-model")
    }
    fields = changes[0]["fields"]
    assert fields["parameters"]["old"]["recipe"]["training"]["learning_rate"] == 1e-3
    assert fields["parameters"]["new"]["recipe"]["training"]["learning_rate"] == 2e-4
    assert fields["schedules"]["old"][0]["schedule"]["cron"] == "0 5 * * *"
    found = bare.get("deployments/name/adapt/tiny")
    assert [entry["schedule"]["cron"] for entry in found["schedules"]] == ["0 7 * * *"]


def test_a_limit_that_a_user_set_stays(bare: Team) -> None:
    bare.deploy()
    bare.send("PATCH", "work_pools/gpu", json={"concurrency_limit": 8})
    bare.deploy()
    assert bare.get("work_pools/gpu")["concurrency_limit"] == 8


def test_a_budget_that_grew_on_the_server_is_kept_and_one_that_the_recipe_goes_on_from_grows(
    bare: Team,
) -> None:
    variable = "variables/name/dapt_tiny_budget"
    bare.deploy()
    bare.send("PATCH", variable, json={"value": "5K,11K,15K"})
    assert bare.deploy() == []
    assert named(bare.deploy('budget.milestones=["5K","11K","15K","20K"]')) >= {
        "update variable dapt_tiny_budget"
    }
    assert bare.get(variable)["value"] == "5K,11K,15K,20K"
    bare.send("PATCH", variable, json={"value": "5K,11K"})


def test_budget_appends_refuses_a_smaller_one_and_says_why(bare: Team) -> None:
    bare.deploy()

    def budget(amount: str) -> tuple[int, str]:
        done = dapt(bare.world, "budget", "recipe.toml", amount, PREFECT_API_URL=bare.url)
        return done.code, done.out + done.err

    assert budget("15K") == (0, "dapt_tiny_budget: 5K,11K → 5K,11K,15K; adapt/tiny runs the growth\n")
    assert budget("15K") == (0, "dapt_tiny_budget holds 5K,11K,15K already: nothing to do\n")
    code, told = budget("7K")
    assert code == 2
    assert "7K is smaller than the 15K that the budget holds" in told
    assert "nothing that stands is deleted" in told
    code, told = budget("lots")
    assert (code, "'lots' is no amount" in told) == (2, True)


def test_without_a_server_it_says_how_to_name_one(given_world: World) -> None:
    done = dapt(given_world, "deploy", "recipe.toml")
    assert done.code == 1
    assert "no Prefect server is named" in done.err


@pytest.fixture
def given_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("given") / "world")


def test_a_pool_without_workers_is_said_in_the_plan_and_when_a_run_begins(bare: Team) -> None:
    bare.deploy()
    here = {"PREFECT_API_URL": bare.url, "DAPT_POOL": "gpu"}
    idle = "no worker of the pool 'gpu' is on line; start one: prefect worker start --pool gpu"
    assert dapt(bare.world, "plan", "recipe.toml", "--json", **here).told["pool"] == {
        "name": "gpu",
        "idle": idle,
    }
    with started(bare.world, "run", "recipe.toml", **here) as process:
        assert process.stderr is not None
        said = list(islice(takewhile(lambda line: line != f"{idle}\n", process.stderr), 6))
    assert said[-1].startswith("watch it at ")


def test_a_pool_on_no_server_is_refused(given_world: World) -> None:
    done = dapt(given_world, "run", "recipe.toml", DAPT_POOL="gpu")
    assert done.code == 1
    assert "the pool 'gpu' is on no server: set PREFECT_API_URL" in done.err


def test_prefects_own_deploy_takes_the_same_flows(bare: Team) -> None:
    file = ROOT / "deployments" / "prefect.yaml"
    bare.start("deploy", "--no-prompt", "deploy", "--all", "--prefect-file", str(file))
    assert bare.processes["deploy"].wait(120) == 0, (bare.world.folder / "deploy.log").read_text()
    found = bare.get("deployments/name/adapt/textbooks")
    assert found["entrypoint"] == "flows.adapt.adapt"
    assert found["parameters"]["recipe"]["budget"]["milestones"] == [400_000_000]
