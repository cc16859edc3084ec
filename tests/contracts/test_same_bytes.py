"""Promise: one identity is one sequence of bytes, whatever the folder, the name and the number of workers."""

from pathlib import Path

import pytest

from tests.contracts.conftest import Grown, Scratch
from tests.contracts.world import LARGE, SMALL, STAGES, World, corpus_rows, nodes_of, snapshot

pytestmark = pytest.mark.flow


def test_another_folder_name_and_worker_count_make_the_same_bytes(grown: Grown, scratch: Scratch) -> None:
    one, two = snapshot(grown.store), snapshot(scratch.store)
    common = one.keys() & two.keys()
    assert {path.split("/")[0] for path in common} == set(STAGES)
    assert all(one[path] == two[path] for path in common)
    used = {f"{path}/data.parquet" for path in scratch.packed}
    assert used <= common


def test_growth_ends_in_the_corpus_made_from_scratch(grown: Grown, scratch: Scratch) -> None:
    rows = corpus_rows(grown.store, grown.large.body["milestones"][1])
    assert rows.equals(corpus_rows(scratch.store, scratch.large.body["milestones"][0]))


def test_how_a_training_is_computed_changes_no_node_of_the_plan(world: World, grown: Grown) -> None:
    def nodes(**how: object) -> dict[tuple[str, str], str]:
        recipe = world.recipe("grown", at="how", budgets=[SMALL, LARGE], training=how)
        plan = nodes_of(world.plan(grown.store, recipe))
        return {key: node["fingerprint"] for key, node in plan.items() if key[0] != "report"}

    plain = nodes()
    assert {"corpus", "training", "evaluation"} < {stage for stage, _ in plain}
    assert plain == nodes(zero_stage=1, micro_batch=2, checkpoint_every=3, gradient_checkpointing=True)
    other = nodes(learning_rate=0.5)
    assert {key for key in plain if plain[key] != other[key]} == {
        key for key in plain if key[0] in ("training", "evaluation") and not key[1].startswith("base")
    }


def test_a_changed_threshold_makes_its_stage_and_what_follows_and_the_way_back_is_free(
    world: World, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    recipe = world.recipe("threshold")
    first = world.run(store, recipe)
    before = snapshot(store)
    changed = world.recipe("threshold", at="changed", filtering={"min_lines": 6})
    plan = nodes_of(world.plan(store, changed))
    assert {n["state"] for (stage, _), n in plan.items() if stage == "download" and not n["estimated"]} <= {
        "HIT"
    }
    second = world.run(store, changed)
    stages = second.body["stages"]
    assert stages["download"]["hit"] == first.body["stages"]["download"]["computed"]
    assert all(stages[stage]["hit"] == 0 for stage in ("filtering", "dedup", "tokenization", "packing"))
    assert (
        stages["filtering"]["dropped"]["min_lines"]
        > first.body["stages"]["filtering"]["dropped"]["min_lines"]
    )
    after = snapshot(store)
    assert before.items() <= after.items()
    back = world.run(store, recipe)
    assert back.computed == {}
    assert snapshot(store) == after


def test_another_worker_count_makes_nothing(world: World, grown: Grown) -> None:
    assert world.run(grown.store, grown.recipe, DAPT_WORKERS="5").computed == {}
