"""What a training took is read from the record of its steps; what a model wrote, from its samples."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.took import code_of, devices_of, evaluation_took, samples_of, training_took, wall_seconds
from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node
from tasks.training.steps import STEPS, Row, steps_table

TOKENS_A_STEP = 64


def trained(store: Store, rows: list[Row] | pa.Table, *, begin: int = 0, **how: Any) -> Manifest:
    """A training's node as far as it is read here."""

    def build(writer: NodeWriter) -> None:
        table = steps_table(rows) if isinstance(rows, list) else rows
        with writer.parquet(table.schema, name=STEPS) as out:
            out.write_table(table)
        writer.details = {"extends_from_step": begin}
        writer.how |= {"resumed_from_step": begin, "device": "cpu", "ranks": 2, "cores": 4, **how}

    node = Node(stage="training", version=1, config={"rows": len(rows)}, inputs={"of": str(how)})
    manifest, _ = build_node(store, node, build, room="tasks.training", shard="x")
    return manifest


def steps(count: int, speed: float = 32.0) -> list[Row]:
    """Steps of two seconds each."""
    return [
        [n, n * TOKENS_A_STEP, 3.0, 1e-3, 1.0, speed, None, None, None, 1000 + n, 0.0]
        for n in range(1, count + 1)
    ]


def test_the_time_of_all_steps_is_counted_also_of_those_before_an_interruption(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    whole = trained(store, steps(10))
    resumed = trained(store, steps(10), resumed_from_step=6)
    once, twice = (training_took(store, one, TOKENS_A_STEP) for one in (whole, resumed))
    assert once["training"]["core_seconds"] == twice["training"]["core_seconds"] == 4 * 10 * 2
    assert once["training"]["gpu_seconds"] is None
    assert once["training"]["seconds"] == whole.seconds
    assert twice["training"]["seconds"] == resumed.seconds + 6 * 2


def test_on_gpus_each_rank_holds_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    spent = training_took(store, trained(store, steps(10), device="cuda"), TOKENS_A_STEP)["training"]
    assert (spent["gpu_seconds"], spent["core_seconds"]) == (2 * 10 * 2, None)


def test_a_milestone_that_extends_tells_its_own_steps_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest = trained(store, steps(10), begin=6)
    took = training_took(store, manifest, TOKENS_A_STEP)
    assert took["tokens_before"] == 6 * TOKENS_A_STEP
    assert [row[0] for row in took["measured"]] == [n * TOKENS_A_STEP for n in (7, 8, 9, 10)]
    assert took["training"]["core_seconds"] == 4 * 4 * 2
    assert took["training"]["seconds"] == manifest.seconds, "the six steps were another milestone's"


def test_energy_is_summed_over_all_steps_or_not_known(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    counted = [[*row, 600.0, 50.0] for row in steps(4)]
    spent = training_took(store, trained(store, counted), TOKENS_A_STEP)["training"]
    assert (spent["gpu_joules"], spent["host_joules"]) == (2400, 200)
    counted[1][-1] = None
    spent = training_took(store, trained(store, counted, begin=1, ranks=1), TOKENS_A_STEP)["training"]
    assert (spent["gpu_joules"], spent["host_joules"]) == (1800, None), "a step's is not known"


def test_a_record_without_energy_is_told_without_it(tmp_path: Path) -> None:
    """Columns are added to the record now and then; what was trained before stays readable."""
    store = Store(str(tmp_path))
    table = steps_table(steps(4)).drop_columns(["gpu_joules", "host_joules"])
    spent = training_took(store, trained(store, table), TOKENS_A_STEP)["training"]
    assert "gpu_joules" not in spent
    assert spent["core_seconds"] == 4 * 4 * 2


def test_many_steps_are_told_in_runs_with_their_time_and_most_memory(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = steps(1001)
    for row in rows[::2]:
        row[5], row[6] = 64.0, 0.2
    for row in rows[1::2]:
        row[6] = 0.1
    measured = training_took(store, trained(store, rows), TOKENS_A_STEP)["measured"]
    assert len(measured) == 200
    tokens, speed, mfu, allocated, reserved, rss = measured[-1]
    assert (tokens, allocated, reserved, rss) == (1001 * TOKENS_A_STEP, None, None, 1000 + 1001)
    assert speed == pytest.approx(5 * 64 / (3 * 1 + 2 * 2), abs=0.05), (
        "a half of the steps at twice the speed"
    )
    assert mfu == pytest.approx((3 * 1 * 0.2 + 2 * 2 * 0.1) / 7)
    assert math.isclose(sum(row[1] for row in measured) / 200, 42.7, rel_tol=0.1)


def test_steps_that_were_not_measured_make_nothing_up(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = steps(4)
    rows[1] = rows[1][:5]
    manifest = trained(store, rows)
    took = training_took(store, manifest, TOKENS_A_STEP)
    assert took["measured"] == []
    assert took["training"]["core_seconds"] is None
    assert took["training"]["seconds"] == manifest.seconds


def made(stage: str, second: int, seconds: float, **more: Any) -> Manifest:
    started = f"2026-01-01T00:00:{second:02d}+00:00"
    fields: dict[str, Any] = {
        "version": 1,
        "fingerprint": f"{second:064d}",
        "config": {},
        "inputs": {},
        "files": [],
    }
    return Manifest(stage=stage, started=started, seconds=seconds, **fields, **more)


def test_wall_time_counts_what_ran_at_once_once_and_no_pause() -> None:
    spans = [made("dedup", 0, 4), made("dedup", 1, 2), made("dedup", 3, 3), made("dedup", 20, 5)]
    assert wall_seconds(reversed(spans)) == 6 + 5
    assert wall_seconds([]) == 0


def test_an_evaluation_costs_a_gpu_where_it_ran_on_one_and_else_what_it_used_of_the_cores() -> None:
    on_cpu, on_gpu, uncounted = (
        made("evaluation", 0, 4, how={"device": "cpu", "cpu_seconds": 6.5}),
        made("evaluation", 1, 3, how={"device": "cuda"}),
        made("evaluation", 2, 2, how={"device": "cpu"}),
    )
    assert evaluation_took([on_cpu]) == {"seconds": 4, "gpu_seconds": None, "core_seconds": 6.5}
    assert evaluation_took([on_cpu, on_gpu]) == {"seconds": 7, "gpu_seconds": 3, "core_seconds": 6.5}
    assert evaluation_took([on_cpu, uncounted])["core_seconds"] is None


def test_devices_are_told_by_number_and_name_each_once() -> None:
    how = {"ranks": 2, "device": "cuda", "device_name": "NVIDIA H100"}
    on_cpu = made("training", 0, 1, how={"ranks": 1, "device": "cpu", "device_name": ""})
    nodes = [on_cpu, made("dedup", 1, 1), made("training", 2, 1, how=how), made("training", 3, 1, how=how)]
    assert devices_of(nodes) == ["2 x NVIDIA H100"]


def test_code_is_told_by_stage_each_version_once() -> None:
    nodes = [
        made("dedup", n, 1, package="0.1.0", commit=commit) for n, commit in enumerate(("aa", "aa", "bb"))
    ]
    assert code_of([*nodes, made("packing", 9, 1)]) == {"dedup": ["0.1.0 aa", "0.1.0 bb"]}


def test_without_samples_there_are_none_to_show(tmp_path: Path) -> None:
    node = Node(stage="evaluation", version=1, config={"kind": "samples"}, inputs={})
    assert samples_of(Store(str(tmp_path)), {"base": {}, "5K": {"samples": node}}) == []
