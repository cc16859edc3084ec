"""A run that forgets on purpose: stopped by its tolerance, its model kept and marked."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from flows.inspect import print_status, status
from flows.lineage import lineage, print_lineage
from tests.flows.commands import Api, Done, dapt
from tests.flows.world import World

pytestmark = [pytest.mark.train, pytest.mark.flow]

TOLERANCE = "evaluation.tolerance.domain=0.01"
WORDS = ["run", "recipe.toml", "--set", 'budget.milestones=["5K"]', "--set", "training.learning_rate=3"]
NO_SERVER = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}


@dataclass(frozen=True)
class Story:
    """The run, and what its server says of it."""

    world: World
    api: Api
    done: Done


@pytest.fixture(scope="module")
def story(corpora: World, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Story:
    world = World(shutil.copytree(corpora.folder, tmp_path_factory.mktemp("gate") / "world"))
    words = [*WORDS, "--set", "name=gate", "--set", TOLERANCE]
    return Story(world, api, dapt(world, *words, PREFECT_API_URL=api.url))


def test_the_run_says_first_what_it_forgot_and_ends_with_4(story: Story) -> None:
    done = story.done
    assert done.code == 4, done.err
    first = done.out.splitlines()[0]
    assert first.startswith("forgot: domain: bits per byte went from ")
    assert first.endswith("beyond the +1.00% allowed")
    assert f"error: {first}" in done.err
    assert "Traceback" not in done.err
    assert "report: /" in done.out, "all was made"


def test_its_flow_ends_failed_in_a_state_of_its_own(story: Story) -> None:
    assert story.api.flow_runs("adapt gate") == {"adapt gate": ["Forgot"]}
    (run,) = story.api.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": ["adapt gate"]}}})
    assert run["state_type"] == "FAILED"
    assert run["state"]["message"].startswith("forgot: domain: bits per byte")
    others = story.api.flow_runs("train gate 5K", "evaluate gate 5K", "report gate")
    assert list(others.values()) == [["Completed"]] * 3


def test_run_again_it_makes_nothing_and_says_it_again(story: Story) -> None:
    again = dapt(story.world, *WORDS, "--set", "name=gate", "--set", TOLERANCE, "--json", **NO_SERVER)
    assert again.code == 4
    assert "nothing to do" in again.err
    told = again.told
    (loss,) = told["forgetting"]
    assert (loss["milestone"], loss["metric"], loss["tolerance"]) == ("5K", "domain", 0.01)
    scores = told["milestones"][0]["scores"]["bits_per_byte"]
    assert (loss["base"], loss["score"]) == (told["base"]["bits_per_byte"]["domain"], scores["domain"])
    assert loss["loss"] == pytest.approx(loss["score"] / loss["base"] - 1)
    assert 0.01 < loss["low"] < loss["loss"] < loss["high"]
    assert told["error"].startswith("forgot: domain")
    assert Path(told["milestones"][0]["checkpoint"], "model.safetensors").exists(), "the model is kept"


def test_it_is_marked_where_one_looks(story: Story) -> None:
    world, out = story.world, io.StringIO()
    resolved = world.resolve('budget.milestones=["5K"]', "training.learning_rate=3", "name=gate", TOLERANCE)
    told = status(resolved, on_server=False)
    assert (told["failed"], told["missing"]) == ([], [])
    (loss,) = told["forgetting"]
    print_status(told, Console(file=out, width=80))
    assert out.getvalue().startswith("forgot domain: bits per byte went from")

    reports = [json.loads(path.read_text()) for path in world.store.glob("report/*/*/report.json")]
    firsts = [told["verdict"]["sentences"][0] for told in reports]
    assert any(said.startswith("It forgot more than its recipe allows: domain: bits") for said in firsts)

    (model,) = [path.parent for path in world.store.glob("training/*/*/losses.json")]
    origin, out = lineage(str(model)), io.StringIO()
    assert origin["forgetting"] == [loss]
    print_lineage(origin, Console(file=out, width=80))
    assert out.getvalue().startswith("forgot: domain: bits per byte went from")


def test_a_leg_before_the_evaluation_judges_nothing(story: Story) -> None:
    words = [*WORDS, "--set", "name=gate", "--set", TOLERANCE, "--until", "train", "--json"]
    done = dapt(story.world, *words, **NO_SERVER)
    assert (done.code, done.told["forgetting"], done.told["error"]) == (0, [], None)


def test_with_a_tolerance_that_it_keeps_it_is_done(story: Story) -> None:
    """Only the report, which tells the tolerance, is made anew; of one document nothing can be said."""
    words = [*WORDS, "--set", "name=gate", "--set", "evaluation.tolerance.domain=1000", "--json"]
    words += ["--set", "evaluation.tolerance.general=0"]
    done = dapt(story.world, *words, PREFECT_API_URL=story.api.url)
    assert done.code == 0, done.err
    assert {stage: t["computed"] for stage, t in done.told["stages"].items() if t["computed"]} == {
        "report": 1
    }
    assert done.told["forgetting"] == []
    assert "not judged: evaluation.tolerance.general; base and milestones need two documents" in done.err
