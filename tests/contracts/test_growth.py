"""Promise: the corpus of a larger budget begins with that of a smaller one, and only the rest is made."""

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.contracts.conftest import Grown, Scratch
from tests.contracts.world import (
    LARGE,
    LENGTH,
    SMALL,
    World,
    corpus_rows,
    corpus_shards,
    manifests,
    nodes_of,
    snapshot,
)

pytestmark = pytest.mark.flow

TOLD = ("download", "filtering", "dedup", "tokenization", "packing")


def test_growth_uses_every_old_shard_verdict_and_row_again(grown: Grown) -> None:
    for stage in TOLD:
        small, large = grown.small.body["stages"][stage], grown.large.body["stages"][stage]
        assert (small["hit"], large["hit"]) == (0, small["computed"])
        assert large["computed"] > 0
    after = snapshot(grown.store)
    assert grown.small_snapshot.items() <= after.items()
    assert len(after) > len(grown.small_snapshot)


def test_the_plan_of_a_growth_says_what_the_run_then_counts(grown: Grown) -> None:
    planned: dict[str, Counter[str]] = {stage: Counter() for stage in TOLD}
    for (stage, _), node in nodes_of(grown.plan, *TOLD).items():
        planned[stage][node["state"]] += 1
        assert node["estimated"] == (node["state"] == "MISS")
        assert node["fingerprint"]
    for stage in TOLD:
        counted = grown.large.body["stages"][stage]
        assert planned[stage]["HIT"] == counted["hit"]
        assert abs(planned[stage]["MISS"] - counted["computed"]) <= 2, "an estimate; at most two shards off"
    for stage in TOLD:
        planned_of = {node["fingerprint"] for node in nodes_of(grown.plan, stage).values()}
        made = {path.split("/")[2] for path in snapshot(grown.store, stage)}
        assert planned_of <= made or made <= planned_of, "both are the first shards, by the same identities"


def test_after_a_growth_the_plan_is_all_hits(world: World, grown: Grown) -> None:
    data = nodes_of(world.plan(grown.store, grown.recipe), *TOLD, "corpus")
    assert {node["state"] for node in data.values()} == {"HIT"}


def test_the_small_corpus_is_the_beginning_of_the_large_one(grown: Grown) -> None:
    small, large = grown.large.body["milestones"]
    assert [m["sequences"] for m in (small, large)] == [SMALL // LENGTH, LARGE // LENGTH]
    assert small == grown.small.body["milestones"][0]
    short, long = (corpus_rows(grown.store, milestone) for milestone in (small, large))
    assert long.num_rows == LARGE // LENGTH
    assert short.equals(long.slice(0, short.num_rows))


def test_new_files_at_the_end_make_only_theirs(world: World, grown: Grown, tmp_path: Path) -> None:
    store = tmp_path / "store"
    two = [str(world.sources / "part-0.parquet"), str(world.sources / "part-1.jsonl")]
    rows = [shard["rows"] for shard in corpus_shards(grown.large.body["milestones"][1])]
    everything_in_two = sum(rows[:4]) * LENGTH
    first = world.run(store, world.recipe("files", budgets=[everything_in_two], download={"files": two}))
    before, fetched = snapshot(store), set(manifests(store, "download"))
    assert len(fetched) == 4
    second = world.run(store, world.recipe("files", budgets=[everything_in_two, LARGE]))
    assert before.items() <= snapshot(store).items()
    for stage in TOLD:
        assert second.body["stages"][stage]["hit"] == first.body["stages"][stage]["computed"]
    new = manifests(store, "download").keys() - fetched
    assert new
    expected = corpus_rows(grown.store, grown.large.body["milestones"][1])
    assert corpus_rows(store, second.body["milestones"][1]).equals(expected)


@pytest.mark.parametrize("seed", [1, 2])
def test_any_split_of_the_budget_ends_in_the_same_rows(
    world: World, scratch: Scratch, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    expected = corpus_rows(scratch.store, scratch.large.body["milestones"][0])
    steps = rng.sample(range(1, LARGE // 2000), 2)
    budgets = [*(2000 * step for step in sorted(steps)), LARGE]
    made: Counter[str] = Counter()
    for reached in range(1, len(budgets) + 1):
        done = world.run(tmp_path, world.recipe(f"split-{seed}", budgets=budgets[:reached]))
        made.update(done.computed)
        for milestone in done.body["milestones"]:
            rows = corpus_rows(tmp_path, milestone)
            assert rows.num_rows == -(-milestone["budget"] // LENGTH)
            assert rows.equals(expected.slice(0, rows.num_rows))
    shards = len(scratch.packed)
    assert {made[stage] for stage in TOLD} <= {shards}, "each shard was made once, whatever the steps"
