"""The whole DAG on a tiny world: interrupted in the middle of a training, run again to its end, looked at."""

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flows.commands import Api, Done, await_that, dapt, made, processes_of, started
from tests.flows.test_inspect import STAGE_KEYS
from tests.flows.world import World
from tests.leaks import leaked, leaks

pytestmark = [pytest.mark.train, pytest.mark.flow]


@dataclass(frozen=True)
class Interrupted:
    """What an interruption in a training left."""

    code: int
    seconds: float
    err: str
    alive: list[int]
    runs: dict[str, list[str]]
    leaks: list[str]
    """Files of the store, a training's job, log and events among them, that hold a planted secret."""


@dataclass(frozen=True)
class Story:
    """A run that was interrupted, and its second half."""

    world: World
    api: Api
    first: Interrupted
    done: Done


PLANTED = {"HF_TOKEN": "hf_planted4Vd81cQ", "AWS_SECRET_ACCESS_KEY": "planted/aws+secret2"}
WORDS = ["run", "recipe.toml", "--set", 'budget.milestones=["5K"]', "--set", "training.epochs=6"]


@pytest.fixture(scope="module")
def story(corpora: World, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Story:
    world = World(shutil.copytree(corpora.folder, tmp_path_factory.mktemp("whole") / "world"))
    env = {"PREFECT_API_URL": api.url, **PLANTED}
    with started(world, *WORDS, **env) as process:
        steps = lambda: list(world.store.glob("work/training/*/step-*/manifest.json"))  # noqa: E731
        await_that(steps, "a training has a checkpoint", 200)
        at = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        seconds = time.monotonic() - at
    time.sleep(0.5)
    alive = processes_of(world.store)
    names = ("adapt tiny", "train tiny 5K")
    found = leaks(world.store, list(PLANTED.values()))
    first = Interrupted(process.returncode, seconds, err, alive, api.flow_runs(*names), found)
    return Story(world, api, first, dapt(world, *WORDS, "--json", **env))


def test_ctrl_c_in_a_training_ends_it_and_its_processes_at_once(story: Story) -> None:
    first = story.first
    assert first.code == 130
    assert first.seconds < 5
    assert first.alive == []
    assert "stopped; run the same command again to continue" in first.err
    assert "Traceback" not in first.err
    assert first.runs["adapt tiny"][-1] == first.runs["train tiny 5K"][-1] == "Cancelled"


def test_a_training_tells_its_progress_where_there_is_no_terminal(story: Story) -> None:
    lines = [line for line in story.first.err.splitlines() if line.startswith("training 5K: ")]
    assert lines
    assert "/118 step loss " in lines[0]
    assert lines[0].endswith(" tokens/s")


def test_the_second_half_completes_what_the_first_began(story: Story) -> None:
    assert story.done.code == 0, story.done.err
    told = story.done.told
    assert told["stages"]["packing"]["computed"] == 0
    assert told["stages"]["training"]["computed"] == 1
    assert told["stages"]["training"]["hit"] == 1, "the base was made before"
    assert made(story.world, "training") == 2


def test_a_whole_run_s_json_has_the_promised_keys(story: Story) -> None:
    told = story.done.told
    assert set(told) == {"recipe", "stages", "milestones", "base", "failed", "report", "error"}
    assert told["error"] is None
    assert all(set(tally) == STAGE_KEYS for tally in told["stages"].values())
    assert {"training", "evaluation", "report"} <= set(told["stages"])
    assert told["stages"]["training"]["peak_rss_bytes"] > 50_000_000
    (milestone,) = told["milestones"]
    keys = {"budget", "tokens", "sequences", "corpus", "checkpoint", "scores"}
    assert set(milestone) == keys
    assert (
        set(milestone["scores"]["bits_per_byte"])
        == set(told["base"]["bits_per_byte"])
        == {"domain", "general"}
    )
    assert milestone["scores"]["bits_per_byte"]["domain"] < told["base"]["bits_per_byte"]["domain"]
    for path in (milestone["checkpoint"], milestone["corpus"], told["report"]):
        assert Path(path).is_absolute()
        assert Path(path).exists()


def test_its_checkpoint_is_in_hugging_face_layout(story: Story) -> None:
    folder = Path(story.done.told["milestones"][0]["checkpoint"])
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"} <= names


def test_run_again_there_is_nothing_to_do_and_the_same_is_told(story: Story) -> None:
    again = dapt(story.world, *WORDS, "--json", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert again.code == 0, "no server is needed"
    assert "nothing to do" in again.err
    told, before = again.told, story.done.told
    assert (told["milestones"], told["base"], told["report"]) == (
        before["milestones"],
        before["base"],
        before["report"],
    )
    assert all(tally["computed"] == 0 for tally in told["stages"].values())
    assert told["stages"]["training"]["tokens"] == 0, "tokens trained now"
    plan = dapt(story.world, "plan", *WORDS[1:], "--json").told
    assert plan["totals"]["miss"] == 0
    assert plan["totals"]["hit"] == len(plan["nodes"])


def test_status_and_verify_agree_that_it_is_whole(story: Story) -> None:
    status = dapt(story.world, "status", *WORDS[1:], "--json").told
    assert (status["failed"], status["waiting"], status["missing"]) == ([], [], [])
    assert all(counts["stand"] == counts["expected"] for counts in status["stages"].values())
    verified = dapt(story.world, "verify", *WORDS[1:], "--json").told
    assert verified["damaged"] == []
    assert verified["checked"] >= sum(counts["stand"] for counts in status["stages"].values())


def test_every_leg_has_its_flow_run(story: Story) -> None:
    runs = story.api.flow_runs()
    for name in ("adapt tiny", "domain corpus of tiny", "train tiny 5K", "evaluate tiny base", "report tiny"):
        assert runs[name][-1] == "Completed", name


def test_its_record_names_what_it_stands_on(story: Story) -> None:
    (file,) = [
        path
        for path in story.world.store.glob("recipes/tiny/*.json")
        if json.loads(path.read_text())["recipe"]["training"]["epochs"] == 6
    ]
    record = json.loads(file.read_text())
    for paths in record["nodes"].values():
        assert all((story.world.store / path / "manifest.json").exists() for path in paths)


def test_the_secrets_of_its_environment_are_written_nowhere(story: Story) -> None:
    secrets = list(PLANTED.values())
    assert story.first.leaks == []
    assert leaks(story.world.store, secrets) == []
    assert leaked(f"{story.first.err}{story.done.out}{story.done.err}", secrets) == []
