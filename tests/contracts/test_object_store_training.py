"""Promise: on an object store the whole graph runs, and another machine goes on where one died."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.store.json import JSON
from tasks.store.paths import Store
from tests.contracts.world import World, processes_with
from tests.services import await_that, object_store

pytestmark = pytest.mark.train

FIRST, SECOND = 6400, 9600
"""Tokens: 100 and 150 sequences, 25 and 37 steps of 4."""
TRAINING = {"learning_rate": 1e-2, "global_batch_sequences": 4, "precision": "fp32", "checkpoint_every": 2}


@pytest.fixture
def bucket() -> Iterator[str]:
    with object_store("trained") as started:
        yield f"{started}/store"


def recipe_of(world: World, budgets: list[int]) -> Path:
    more: dict[str, JSON] = {"training": TRAINING, "evaluation": {"benchmarks": []}}
    return world.recipe("objects-trained", budgets=budgets, held_out={"max_documents": 4}, **more)


def sent(store: Store) -> list[str]:
    """Whole checkpoints on the store."""
    found = []
    for training in store.names("work/training"):
        steps = [f"work/training/{training}/{name}" for name in store.names(f"work/training/{training}")]
        found += [step for step in steps if store.size(f"{step}/manifest.json")]
    return found


def test_a_training_killed_on_one_machine_goes_on_on_another_and_grows_to_the_report(
    world: World, bucket: str, tmp_path: Path
) -> None:
    store = Store(bucket)
    one, other = tmp_path / "one", tmp_path / "other"
    for scratch in (one, other):
        scratch.mkdir()
    words = ("run", recipe_of(world, [FIRST]), "--until", "train")
    with world.start(bucket, *words, DAPT_SCRATCH=str(one)) as process:
        while not sent(store):
            assert process.poll() is None, "it ended before"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    await_that(lambda: not processes_with(f"DAPT_SCRATCH={one}"), "its processes are gone")

    recipe = recipe_of(world, [FIRST, SECOND])
    done = world.call(bucket, "run", recipe, DAPT_SCRATCH=str(other))
    assert done.code == 0, done.stderr
    stages = done.body["stages"]
    assert (stages["training"]["computed"], stages["evaluation"]["computed"]) == (2, 6)
    small, large = done.body["milestones"]
    resumed = json.loads(store.read(f"{small['checkpoint'].removeprefix(f'{bucket}/')}/manifest.json"))
    assert resumed["how"]["resumed_from_step"] >= 2
    assert small["scores"] != large["scores"]
    assert store.read(done.body["report"].removeprefix(f"{bucket}/")).startswith(b"<!")

    assert sent(store) == [], "checkpoints go when the model stands"
    assert [path for path in other.rglob("*") if path.is_file()] == [], (
        "nothing is left in the scratch folder"
    )
    assert world.call(bucket, "verify", recipe).body["damaged"] == []
    assert world.call(bucket, "run", recipe, DAPT_SCRATCH=str(other)).computed == {}
