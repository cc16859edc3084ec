"""Promise: what is damaged is found, named and set aside, and the next run repairs just that."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contracts.conftest import Grown
from tests.contracts.world import STAGES, World, corpus_rows, manifests, nodes_of, snapshot

pytestmark = pytest.mark.flow


def flip(data: Path) -> None:
    content = data.read_bytes()
    data.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])


def truncate(data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-50])


def remove(data: Path) -> None:
    data.unlink()


def break_manifest(data: Path) -> None:
    (data.parent / "manifest.json").write_text('{"stage": "pack')


@pytest.fixture(scope="module")
def store(grown: Grown, world: World) -> Path:
    copy = world.folder / "damaged"
    return shutil.copytree(grown.store, copy, ignore=shutil.ignore_patterns("prefect"))


def made_times(store: Path) -> dict[str, int]:
    return {
        path: (store / path / "manifest.json").stat().st_mtime_ns
        for stage in STAGES
        for path in manifests(store, stage)
    }


@pytest.mark.parametrize(
    ("stage", "hurt"),
    [
        ("download", flip),
        ("filtering", truncate),
        ("signatures", remove),
        ("dedup", break_manifest),
        ("tokenization", flip),
        ("packing", remove),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_verify_names_one_damaged_node_and_the_next_run_makes_just_it(
    world: World, grown: Grown, store: Path, stage: str, hurt: Callable[[Path], None]
) -> None:
    good, before = snapshot(store), made_times(store)
    victim = sorted(manifests(store, stage))[1]
    hurt(store / victim / "data.parquet")
    verified = world.call(store, "verify", grown.recipe)
    assert verified.code == 3
    [damaged] = verified.body["damaged"]
    assert damaged["path"] == str(store / victim)
    assert damaged["why"]
    plan = nodes_of(world.plan(store, grown.recipe), *STAGES)
    assert [n["fingerprint"] for n in plan.values() if n["state"] == "MISS"] == [victim.split("/")[2]]
    done = world.run(store, grown.recipe)
    after = made_times(store)
    assert {path for path in after if after[path] != before[path]} == {victim}
    assert snapshot(store) == good
    assert world.call(store, "verify", grown.recipe).code == 0
    expected = corpus_rows(grown.store, grown.large.body["milestones"][1])
    assert corpus_rows(store, done.body["milestones"][1]).equals(expected)


def test_a_plan_tells_what_is_damaged_where_its_size_shows_it(
    world: World, grown: Grown, store: Path
) -> None:
    victim = sorted(manifests(store, "filtering"))[0]
    truncate(store / victim / "data.parquet")
    [node] = [n for n in nodes_of(world.plan(store, grown.recipe), *STAGES).values() if n["state"] == "MISS"]
    assert node["reason"].startswith("damaged: data.parquet has ")
    assert world.run(store, grown.recipe).computed == {"filtering": 1}


def test_damage_met_while_reading_ends_with_3_and_is_repaired_by_the_next_run(
    world: World, grown: Grown, store: Path
) -> None:
    """A flipped byte that nobody verified: found when the stage behind it reads."""
    good = snapshot(store)
    reader = sorted(manifests(store, "packing"))[0]
    tokenized = manifests(store, "packing")[reader]["inputs"]["tokenization"]
    victim = f"tokenization/{tokenized[:2]}/{tokenized}"
    flip(store / victim / "data.parquet")
    shutil.rmtree(store / reader)
    met = world.call(store, "run", grown.recipe, "--until", "corpus")
    assert met.code == 3
    assert str(store / victim) in met.stderr
    done = world.run(store, grown.recipe)
    assert done.computed == {"tokenization": 1, "packing": 1}
    assert snapshot(store) == good
