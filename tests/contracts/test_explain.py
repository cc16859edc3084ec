"""Promise: a plan tells, before anything runs, what misses and because of which field, old and new."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.store.json import JSON
from tests.contracts.conftest import Grown
from tests.contracts.world import LARGE, ROOT, SMALL, STAGES, World, nodes_of, snapshot

pytestmark = pytest.mark.flow


def reasons(plan: JSON, stage: str, state: str = "MISS") -> set[str]:
    return {n["reason"] for n in nodes_of(plan, stage).values() if n["state"] == state}


def test_an_empty_store_is_all_misses_that_were_not_made_yet(offline_world: World, tmp_path: Path) -> None:
    plan = offline_world.plan(tmp_path, offline_world.recipe("first"))
    data = nodes_of(plan, *STAGES)
    assert {(n["state"], n["reason"], n["estimated"]) for n in data.values()} == {
        ("MISS", "not made yet", True)
    }
    assert {stage for stage, _ in data} == set(STAGES)
    assert plan["totals"]["hit"] == 0
    assert plan["totals"]["miss"] == len(plan["nodes"])
    assert min(plan["totals"][k] for k in ("bytes_to_read", "tokens_to_make", "seconds", "disk_bytes")) > 0


@pytest.mark.parametrize(
    ("section", "field", "value", "told"),
    [
        ("filtering", "min_lines", 6, "filtering.min_lines: 3 → 6"),
        ("dedup", "threshold", 0.9, "dedup.threshold: 0.7 → 0.9"),
        ("held_out", "fraction", 0.1, "held_out.fraction: 0.05 → 0.1"),
        ("tokenization", "max_run_fraction", 0.5, "tokenization.max_run_fraction: 0.3 → 0.5"),
        ("packing", "sequence_length", 32, "packing.sequence_length: 64 → 32"),
    ],
)
def test_a_changed_field_is_named_with_its_old_and_new_value(
    world: World, grown: Grown, section: str, field: str, value: float, told: str
) -> None:
    recipe = world.recipe("grown", at="explained", budgets=[SMALL, LARGE], **{section: {field: value}})
    plan = world.plan(grown.store, recipe)
    stage = "dedup" if section == "held_out" else section
    at = STAGES.index(stage)
    assert reasons(plan, stage) == {told}
    for before in STAGES[:at]:
        used = nodes_of(plan, before).values()
        assert {"HIT"} <= {n["state"] for n in used} <= {"HIT", "MISS"}
        assert reasons(plan, before) <= {"new shard"}
    for after in STAGES[at + 1 :]:
        assert "HIT" not in {n["state"] for n in nodes_of(plan, after).values()}
        assert all(told in reason for reason in reasons(plan, after)), reasons(plan, after)


def test_a_field_that_says_how_gives_nothing_to_make(world: World, grown: Grown) -> None:
    how = {"zero_stage": 1, "checkpoint_every": 3}
    plan = world.plan(grown.store, world.recipe("grown", at="how", budgets=[SMALL, LARGE], training=how))
    assert {n["state"] for n in nodes_of(plan, *STAGES, "corpus").values()} == {"HIT"}


def test_growth_is_told_as_new_shards(grown: Grown) -> None:
    for stage in STAGES:
        assert reasons(grown.plan, stage) == {"new shard"}
        assert reasons(grown.plan, stage, "HIT") == {""}


def test_planning_changes_nothing(world: World, grown: Grown) -> None:
    def state() -> dict[str, int]:
        kept = [path for path in grown.store.rglob("*") if "prefect" not in path.parts and path.is_file()]
        return {str(path): path.stat().st_mtime_ns for path in kept}

    before = state()
    world.plan(grown.store, world.recipe("grown", at="looked", budgets=[SMALL], dedup={"threshold": 0.9}))
    assert state() == before


def test_an_edited_comment_runs_nothing_again_and_is_told_as_drift(
    world: World, grown: Grown, tmp_path: Path
) -> None:
    for package in ("flows", "tasks"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    edited = tmp_path / "tasks" / "filtering" / "length.py"
    edited.write_text(f"{edited.read_text()}# A word on lines.\n")
    before = snapshot(grown.store)
    code = (
        "import sys, flows.cli, tasks.store.fingerprint\n"
        "from typer.testing import CliRunner\n"
        "for words in (['plan'], ['run', '--until', 'corpus']):\n"
        "    done = CliRunner().invoke(flows.cli.app, [*words, sys.argv[1], '--json'])\n"
        "    print(flows.cli.__file__, done.exit_code, done.stdout.strip(), sep='|')\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(grown.recipe)],
        cwd=tmp_path,
        env=os.environ | world.environment(grown.store, PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    [planned, ran] = [line.split("|", 2) for line in told.stdout.splitlines()]
    assert planned[:2] == ran[:2] == [str(tmp_path / "flows" / "cli.py"), "0"]
    nodes = nodes_of(json.loads(planned[2]), *STAGES, "corpus")
    drifted = {stage for (stage, _), node in nodes.items() if node["state"] == "DRIFT"}
    assert drifted == {"filtering"}
    assert {node["state"] for (stage, _), node in nodes.items() if stage not in drifted} == {"HIT"}
    assert reasons(json.loads(planned[2]), "filtering", "DRIFT") == {
        "the code of tasks.filtering changed since, its VERSION did not"
    }
    stages = json.loads(ran[2])["stages"]
    assert {tally["computed"] for tally in stages.values()} == {0}
    assert stages["filtering"]["hit"] == len(nodes_of(json.loads(planned[2]), "filtering"))
    assert snapshot(grown.store) == before
