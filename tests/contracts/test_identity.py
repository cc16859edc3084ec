"""Promise: an identity is what is computed from which contents; never a name, a path, a date or a machine."""

import json
import shutil
from pathlib import Path

import pytest

from flows.plan import make_plan
from flows.recipe import load_recipe
from flows.resolve import resolve
from tasks.settings import Settings
from tasks.store.json import JSON
from tests.contracts.world import LARGE, SMALL, STAGES, World

Fingerprints = dict[tuple[str, int], str]
"""By stage and position."""


def fingerprints(store: Path, recipe: Path, workers: int = 2) -> Fingerprints:
    """Of every data node of a recipe that could be needed."""
    chains = resolve(load_recipe(recipe), Settings(store=str(store), workers=workers)).chains
    return {
        (stage, shard.position): node.fingerprint
        for shard in chains["domain"].shards
        for stage, node in shard.nodes.items()
    }


@pytest.fixture(scope="module")
def known(offline_world: World) -> Fingerprints:
    found = fingerprints(offline_world.folder / "identity", offline_world.recipe("identity"))
    assert {stage for stage, _ in found} == {*STAGES, "tokenizer"}
    return found


def test_the_same_files_in_another_folder_are_the_same_nodes(
    offline_world: World, known: Fingerprints, tmp_path: Path
) -> None:
    moved = shutil.copytree(offline_world.sources, tmp_path / "moved", copy_function=shutil.copyfile)
    recipe = offline_world.recipe("elsewhere", download={"files": [str(moved / "part-*")]})
    assert fingerprints(tmp_path / "store", recipe) == known


def test_another_recipe_name_is_the_same_nodes(
    offline_world: World, known: Fingerprints, tmp_path: Path
) -> None:
    assert fingerprints(tmp_path / "store", offline_world.recipe("renamed")) == known


def test_another_worker_count_is_the_same_nodes(
    offline_world: World, known: Fingerprints, tmp_path: Path
) -> None:
    assert fingerprints(tmp_path / "store", offline_world.recipe("identity"), workers=7) == known


def test_another_budget_is_the_same_nodes(offline_world: World, known: Fingerprints, tmp_path: Path) -> None:
    recipe = offline_world.recipe("budgets", budgets=[SMALL, LARGE])
    assert fingerprints(tmp_path / "store", recipe) == known


def test_a_base_model_and_tokenizer_moved_are_the_same_nodes(
    offline_world: World, known: Fingerprints, tmp_path: Path
) -> None:
    moved = str(shutil.copytree(offline_world.base, tmp_path / "base"))
    recipe = offline_world.recipe(
        "moved", training={"base_model": moved}, tokenization={"tokenizer": str(offline_world.base)}
    )
    assert fingerprints(tmp_path / "store", recipe) == known


@pytest.mark.parametrize(
    "how",
    [
        {"zero_stage": 1},
        {"offload": "optimizer"},
        {"gradient_checkpointing": True},
        {"micro_batch": 3},
        {"checkpoint_every": 7},
        {"compile": True},
        {"learning_rate": 0.5},
        {"global_batch_sequences": 12},
    ],
    ids=lambda how: next(iter(how)),
)
def test_nothing_of_training_is_in_a_data_node(
    offline_world: World, known: Fingerprints, tmp_path: Path, how: JSON
) -> None:
    assert fingerprints(tmp_path / "store", offline_world.recipe("how", training=how)) == known


@pytest.mark.parametrize(
    ("section", "field", "value", "first"),
    [
        ("filtering", "min_lines", 6, "filtering"),
        ("filtering", "dup_line_frac", 0.6, "filtering"),
        ("dedup", "ngram", 4, "signatures"),
        ("dedup", "num_perm", 256, "signatures"),
        ("dedup", "threshold", 0.9, "dedup"),
        ("dedup", "num_bands", 20, "dedup"),
        ("held_out", "fraction", 0.1, "dedup"),
        ("tokenization", "max_run_fraction", 0.5, "tokenization"),
        ("packing", "sequence_length", 32, "packing"),
        ("held_out", "max_documents", 3, None),
    ],
)
def test_a_changed_field_changes_its_stage_and_what_follows_only(
    offline_world: World,
    known: Fingerprints,
    tmp_path: Path,
    section: str,
    field: str,
    value: float,
    first: str | None,
) -> None:
    found = fingerprints(tmp_path / "store", offline_world.recipe("changed", **{section: {field: value}}))
    changed = {stage for stage, position in known if found[stage, position] != known[stage, position]}
    assert changed == set(STAGES[STAGES.index(first) :] if first else ())
    kept = {stage for stage, position in known if found[stage, position] == known[stage, position]}
    assert not kept & changed


def test_a_default_written_out_changes_nothing(
    offline_world: World, known: Fingerprints, tmp_path: Path
) -> None:
    recipe = offline_world.recipe(
        "written", filtering={"short_line_characters": 30}, dedup={"num_perm": 128, "ngram": 5}
    )
    assert fingerprints(tmp_path / "store", recipe) == known


def test_a_byte_changed_in_one_file_changes_its_shards_and_the_verdicts_behind_them(
    offline_world: World, known: Fingerprints, tmp_path: Path
) -> None:
    edited = shutil.copytree(offline_world.sources, tmp_path / "edited")
    file = edited / "part-1.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[-1]["text"] = lines[-1]["text"].replace("a", "o", 1)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = fingerprints(
        tmp_path / "store", offline_world.recipe("edited", download={"files": [str(edited / "part-*")]})
    )
    changed = {(s, p) for s, p in known if found[s, p] != known[s, p]}
    assert {p for s, p in changed if s in ("download", "filtering", "signatures")} == {2, 3}
    assert {p for s, p in changed if s == "dedup"} == {p for _, p in known} - {0, 1}


def test_a_plan_writes_no_data(offline_world: World, tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_plan(resolve(load_recipe(offline_world.recipe("planned")), Settings(store=str(store))))
    assert {path.name for path in store.iterdir()} <= {"digests.json"}
