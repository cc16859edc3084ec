"""The evaluation's Prefect tasks."""

from tasks.evaluation.config import ITEMS_STAGE
from tasks.evaluation.unit import build_benchmark, build_held_out, build_items, build_samples
from tasks.policy import node_task

_ROOM, _RUN_NAME = "tasks.evaluation", "evaluate {shard}"
evaluate_benchmark = node_task(
    "evaluation", _ROOM, build_benchmark, name="evaluate benchmark", run_name=_RUN_NAME
)
evaluate_held_out = node_task(
    "evaluation", _ROOM, build_held_out, name="evaluate held-out", run_name=_RUN_NAME
)
write_samples = node_task("evaluation", _ROOM, build_samples, name="write samples", run_name=_RUN_NAME)
read_items = node_task(ITEMS_STAGE, _ROOM, build_items, run_name="items of the benchmarks")
