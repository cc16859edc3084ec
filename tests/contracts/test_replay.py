"""Promise: growth replays the rows it replayed before first; how often they come back is capped and told."""

import shutil
from pathlib import Path

import pytest

from tasks.store.json import JSON
from tests.contracts.conftest import Grown
from tests.contracts.world import LARGE, LENGTH, SMALL, World, conserve, corpus_rows, snapshot

pytestmark = pytest.mark.flow

SHARE = 0.2
NEEDED = {budget: budget // LENGTH // 4 for budget in (SMALL, LARGE)}
"""Four of the domain to one that is replayed."""


def replayed(told: JSON) -> dict[int, JSON]:
    return {milestone["budget"]: milestone["replay"] for milestone in told["milestones"]}


def test_replay_grows_by_what_is_missing_and_is_refused_beyond_its_cap(
    world: World, grown: Grown, tmp_path: Path
) -> None:
    store = shutil.copytree(grown.store, tmp_path / "store")
    before = snapshot(store)
    lines = (world.sources / "part-3.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "general.jsonl").write_text("".join(lines[:60]))

    def recipe(*budgets: int, **fields: JSON) -> Path:
        source = {"files": [str(tmp_path / "general.jsonl")], "shard_bytes": "8KB"}
        return world.recipe("replay", budgets=budgets, general=source | {"replay_fraction": SHARE} | fields)

    small = world.run(store, recipe(SMALL))
    assert set(small.computed) <= {"general:tokenization", "general:packing", "general:corpus"} | {
        f"general:{stage}" for stage in ("download", "filtering", "dedup")
    }
    assert replayed(small.body)[SMALL]["sequences"] == NEEDED[SMALL]
    made = snapshot(store)
    large = world.run(store, recipe(SMALL, LARGE))
    assert before.items() <= made.items() <= snapshot(store).items()
    assert large.body["stages"]["general:packing"]["hit"] == small.computed["general:packing"]
    told = replayed(large.body)
    assert told[SMALL] == replayed(small.body)[SMALL]
    held, needed = told[LARGE]["rows"], NEEDED[LARGE]
    assert (told[LARGE]["sequences"], told[LARGE]["repeats"]) == (needed, -(-needed // held))
    assert told[SMALL]["repeats"] == 1 < told[LARGE]["repeats"], "the sources hold less than the large one"
    assert large.body["stages"]["general:packing"]["tokens"] == held * LENGTH
    rows = [corpus_rows(store, milestone) for milestone in general_corpora(store, [NEEDED[SMALL], held])]
    assert rows[1].slice(0, NEEDED[SMALL]).equals(rows[0])
    conserve(store)
    again = world.run(store, recipe(SMALL, LARGE))
    assert again.computed == {}

    refused = world.call(store, "run", recipe(SMALL, LARGE, max_repeats=1), "--until", "corpus")
    assert refused.code == 1
    assert f"the general sources hold {held} sequences of {LENGTH}" in refused.stderr
    assert f"replays {needed}, and general.max_repeats=1 allows {held}" in refused.stderr
    fitting = float(refused.stderr.split("lower general.replay_fraction to ")[1].split(",")[0])
    assert SHARE * 0.5 < fitting < SHARE
    fits = world.run(store, recipe(SMALL, LARGE, max_repeats=1, replay_fraction=fitting))
    assert replayed(fits.body)[LARGE]["repeats"] == 1


def general_corpora(store: Path, sizes: list[int]) -> list[JSON]:
    """The corpora of so many sequences that are no milestone of the domain."""
    found = []
    for size in sizes:
        (path,) = (
            file.parent
            for file in store.glob("corpus/*/*/manifest.json")
            if f'"sequences": {size},' in file.read_text()
        )
        found.append({"corpus": str(path)})
    return found
