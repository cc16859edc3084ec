"""The whole DAG on a tiny world: interrupted in the middle of a training, run again to its end, looked at."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
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
        time.sleep(0.5)  # what it told before is on its way
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
    assert re.search(r" tokens/s, lr \S+, norm [\d.]+(, \d+:\d\d:\d\d left)?$", lines[0])


def test_the_second_half_completes_what_the_first_began(story: Story) -> None:
    assert story.done.code == 0, story.done.err
    told = story.done.told
    assert told["stages"]["packing"]["computed"] == 0
    assert told["stages"]["training"]["computed"] == 1
    assert told["stages"]["training"]["hit"] == 1, "the base was made before"
    assert made(story.world, "training") == 2


def test_a_whole_run_s_json_has_the_promised_keys(story: Story) -> None:
    told = story.done.told
    assert set(told) == {"recipe", "stages", "milestones", "base", "failed", "report", "forgetting", "error"}
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


def test_a_training_s_progress_moved_and_its_curve_is_a_picture(story: Story) -> None:
    found = story.api.artifacts("train tiny 5K")
    *_, progress = found["tiny-training-5k"]
    assert progress["data"] == 100
    assert progress["description"].startswith("118 steps, ")
    first, *_, last = (state["description"] for state in story.api.history(progress["id"]))
    told = r"step (\d+) of 118, loss [\d.]+, [\d,]+ tokens/s, lr \S+, norm [\d.]+(, \S+ left)?"
    steps = re.fullmatch(told, first)
    assert steps
    assert int(steps[1]) < 118
    assert last == progress["description"]
    *_, curve = found["tiny-loss-5k"]
    assert curve["type"] == "image"
    assert curve["data"].startswith("data:image/svg+xml;base64,")
    (units,) = story.api.artifacts("evaluate tiny 5K")["tiny-evaluation-5k"]
    assert (units["data"], units["description"]) == (100, "3 of 3 units")


def test_the_scores_table_has_the_numbers_of_the_run_s_json(story: Story) -> None:
    *_, table = story.api.artifacts("adapt tiny")["tiny-scores"]
    scores = (story.done.told["base"], story.done.told["milestones"][0]["scores"])
    for row in json.loads(table["data"]):
        corpus = row["measure"].removeprefix("bits_per_byte.")
        base, after = (of_model["bits_per_byte"][corpus] for of_model in scores)
        assert (row["base"], row["5K"]) == (round(base, 4), round(after, 4))
        assert row["5K - base"] == round(after - base, 4)
        if corpus == "domain":
            low, high = map(float, row["5K - base, 95 %"].split(" to "))
            assert low < after - base < high


def test_the_report_is_told_on_the_run_of_the_whole(story: Story) -> None:
    for name in ("report tiny", "adapt tiny"):
        (artifact,) = story.api.artifacts(name)["tiny-report"]
        assert story.done.told["report"] in artifact["data"]
        assert "## Verdict" in artifact["data"]


def test_verdict_scores_and_figures_are_read_on_the_run_of_the_whole(story: Story) -> None:
    found = story.api.artifacts("adapt tiny")
    (verdict,) = found["tiny-verdict"]
    assert verdict["type"] == "markdown"
    assert verdict["data"].startswith(f"{verdict['description']}\n")
    (domain,) = (line for line in verdict["data"].splitlines() if line.startswith("| Bits per byte, domain"))
    base, after = story.done.told["base"], story.done.told["milestones"][0]["scores"]
    for scores in (base, after):
        assert f"{scores['bits_per_byte']['domain']:.3f}" in domain
    figures = json.loads((Path(story.done.told["report"]).parent / "report.json").read_text())["figures"]
    for name, figure in figures.items():
        (image,) = found[f"tiny-figure-{name.replace('_', '-')}"]
        assert image["data"].startswith("data:image/svg+xml;base64,")
        assert image["description"] == figure["caption"]
    assert {"loss", "learning_rate", "bits_per_byte", "throughput", "memory"} <= set(figures)


def test_the_report_tells_where_its_parts_come_from_and_what_they_took(story: Story) -> None:
    told = json.loads((Path(story.done.told["report"]).parent / "report.json").read_text())
    facts, (milestone,) = told["facts"], told["facts"]["milestones"]
    assert set(facts["lineage"]["code"]) >= {"download", "packing", "training", "evaluation"}
    assert len(milestone["measured"]) == 118, "a row a step"
    assert milestone["measured"][-1][0] == milestone["tokens_trained"]
    for part in (milestone["training"], milestone["evaluation"], facts["base"]["evaluation"]):
        assert part["core_seconds"] > 0
        assert part["gpu_seconds"] is None
    assert milestone["documents"] >= 10
    assert len(facts["samples"]) > 0
    for sample in facts["samples"]:
        assert set(sample["continuations"]) == {"base", "5K"}
    assert any(len(set(sample["continuations"].values())) == 2 for sample in facts["samples"])
    page = Path(story.done.told["report"]).read_text()
    assert page.count('<article class="sample">') == len(facts["samples"])


def test_a_training_s_lines_are_in_its_run_s_log_with_their_level_and_not_on_the_terminal(
    story: Story,
) -> None:
    names = {run["id"]: run["name"] for run in story.api.task_runs("train tiny 5K")}
    body = {"logs": {"task_run_id": {"any_": list(names)}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    logs = story.api.ask("logs/filter", body)
    lines = [(log["level"], log["message"]) for log in logs if log["name"] == "tasks.runtime.output"]
    assert any(level == 20 and " INFO tasks.training.loop checkpoint " in line for level, line in lines)
    assert any(level == 30 and "[WARNING] [real_accelerator.py" in line for level, line in lines)
    assert {names[log["task_run_id"]] for log in logs} == {"train 5K"}
    assert any(log["message"].endswith("/log.txt") for log in logs), "the file is named"
    for err in (story.first.err, story.done.err):
        assert "checkpoint at step" not in err
        assert "real_accelerator" not in err


def test_a_flow_without_the_command_line_around_it_is_tagged_and_logged_too(
    standing: World, api: Api
) -> None:
    """As a worker runs it."""
    code = "from flows.gpu import train_model as t; from flows.recipe import load_recipe as r; "
    code += "t(r('recipe.toml', ['name=plain']), 'base')"
    words = [sys.executable, "-c", code]
    env = standing.env(PREFECT_API_URL=api.url)
    done = subprocess.run(words, cwd=standing.folder, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = api.task_runs("train plain base")
    assert run["name"] == "make base"
    assert {"dapt", "recipe:plain", "stage:training"} == set(run["tags"])
    logs = api.ask("logs/filter", {"logs": {"task_run_id": {"any_": [run["id"]]}}})
    lines = [(log["name"], log["level"], log["message"]) for log in logs]
    assert len(lines) == len(set(lines)), "told once"
    assert any(name == "tasks.runtime.launch" and level == 20 for name, level, _ in lines)
    assert any(name == "tasks.runtime.output" and level == 30 for name, level, _ in lines)


def test_the_secrets_of_its_environment_are_written_nowhere(story: Story) -> None:
    secrets = list(PLANTED.values())
    assert story.first.leaks == []
    assert leaks(story.world.store, secrets) == []
    assert leaked(f"{story.first.err}{story.done.out}{story.done.err}", secrets) == []
