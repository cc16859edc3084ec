"""Promise: killed and run again, on other ranks, or grown, a training ends in the same weights.

Real processes over gloo; each start of one costs seconds, so the tests share stores and follow one another.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.store.json import JSON
from tests.contracts.world import Done, World, processes_with

pytestmark = pytest.mark.train

FIRST, SECOND = 6400, 9600
"""Tokens: 100 and 150 sequences, 25 and 37 steps of 4."""
TRAINING = {
    "learning_rate": 1e-2,
    "global_batch_sequences": 4,
    "precision": "fp32",
    "zero_stage": 3,
    "checkpoint_every": 2,
}


@dataclass(frozen=True, slots=True)
class Trained:
    """A store with the model of one milestone, trained on two ranks that nobody disturbed."""

    store: Path
    recipe: Path
    done: Done
    corpus_only: Path
    """A copy made when the corpus stood and nothing was trained."""

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return weights_of(self.done.body["milestones"][0])


def weights_of(milestone: JSON) -> dict[str, torch.Tensor]:
    return load_file(Path(milestone["checkpoint"]) / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def recipe_of(world: World, budgets: list[int], at: str = "") -> Path:
    more: dict[str, JSON] = {"training": TRAINING, "evaluation": {"benchmarks": []}}
    return world.recipe("trained", at=at, budgets=budgets, held_out={"max_documents": 4}, **more)


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    store, recipe = world.folder / "trained", recipe_of(world, [FIRST])
    world.run(store, recipe)
    copy = shutil.copytree(store, world.folder / "corpus-only")
    done = world.call(store, "run", recipe, "--until", "train", DAPT_RANKS="2")
    assert done.code == 0, done.stderr
    return Trained(store, recipe, done, copy)


def wait_for(
    condition: Callable[[], object], process: "subprocess.Popen[str] | None", seconds: float = 240
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_in_training_and_run_again_it_makes_the_same_weights_bit_for_bit(
    world: World, trained: Trained
) -> None:
    store = trained.corpus_only
    with world.start(store, "run", trained.recipe, "--until", "train", DAPT_RANKS="2") as process:
        wait_for(lambda: list((store / "work").glob("training/*/step-*/manifest.json")), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    wait_for(lambda: not processes_with(f"DAPT_STORE={store}"), None, 30)
    again = world.call(store, "run", trained.recipe, "--until", "train", DAPT_RANKS="2")
    assert again.code == 0, again.stderr
    assert again.body["stages"]["training"]["computed"] == 1, "the base stood"
    made = Path(again.body["milestones"][0]["checkpoint"]) / "manifest.json"
    assert 0 < json.loads(made.read_text())["how"]["resumed_from_step"] < 25
    assert equal(weights_of(again.body["milestones"][0]), trained.weights)


def test_another_number_of_ranks_trains_nothing_again(world: World, trained: Trained) -> None:
    other = world.call(trained.store, "run", trained.recipe, "--until", "train", DAPT_RANKS="1")
    assert (other.code, other.computed) == (0, {})
    assert other.body["milestones"] == trained.done.body["milestones"]


def test_one_rank_ends_where_two_do(world: World, trained: Trained, tmp_path: Path) -> None:
    """Same sequences in the same steps; fp32 sums in another order leave 1e-3 of the way apart."""
    store = shutil.copytree(trained.store, tmp_path / "alone")
    model = store / "training" / Path(*Path(trained.done.body["milestones"][0]["checkpoint"]).parts[-2:])
    shutil.rmtree(model)
    shutil.rmtree(store / "work")
    alone = world.call(store, "run", trained.recipe, "--until", "train", DAPT_RANKS="1")
    assert alone.code == 0, alone.stderr
    one, two = weights_of(alone.body["milestones"][0]), trained.weights
    [base] = [load_file(m / "model.safetensors") for m in store.glob("training/*/*") if m != model]

    def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return float(sum(((a[name] - b[name]) ** 2).sum() for name in a) ** 0.5)

    moved = apart(two, base)
    assert moved > 0.1
    assert apart(one, two) < 1e-3 * moved


def test_growth_trains_and_measures_only_what_is_new_up_to_the_report(world: World, trained: Trained) -> None:
    whole = world.call(trained.store, "run", trained.recipe)
    assert whole.code == 0, whole.stderr
    assert whole.computed == {"evaluation": 4, "report": 1}
    assert Path(whole.body["report"]).exists()
    before = trained.weights
    grown = world.call(trained.store, "run", recipe_of(world, [FIRST, SECOND]))
    assert grown.code == 0, grown.stderr
    assert grown.body["stages"]["training"]["computed"] == 1
    assert grown.body["stages"]["evaluation"]["computed"] == 2, "the new checkpoint alone"
    small, large = grown.body["milestones"]
    assert equal(weights_of(small), before)
    assert small["scores"] == whole.body["milestones"][0]["scores"]
    assert grown.body["base"] == whole.body["base"]
    assert not equal(weights_of(large), before)
    report = json.loads(Path(grown.body["report"]).with_name("report.json").read_text())
    first, second = report["facts"]["milestones"]
    assert (first["previous"], set(second["previous"])) == ({}, {"bits_per_byte.domain"})
    change = second["previous"]["bits_per_byte.domain"]
    scores = [milestone["scores"]["bits_per_byte"]["domain"] for milestone in (small, large)]
    assert change["difference"] == pytest.approx(scores[1] - scores[0])
    assert change["low"] < change["difference"] < change["high"]
    assert change["pairs"] == 4
    assert change["p"] >= 2**-3, "four documents say no more"
    assert grown.body["stages"]["training"]["tokens"] == SECOND // 64 // 4 * 4 * 64
    again = world.call(trained.store, "run", recipe_of(world, [FIRST, SECOND]), DAPT_RANKS="3")
    assert again.computed == {}
