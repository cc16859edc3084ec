"""The evaluation's Prefect tasks."""

from tasks.evaluation.unit import build_benchmark, build_held_out
from tasks.policy import node_task

_ROOM, _RUN_NAME = "tasks.evaluation", "evaluate {shard}"
evaluate_benchmark = node_task(
    "evaluation", _ROOM, build_benchmark, name="evaluate benchmark", run_name=_RUN_NAME
)
evaluate_held_out = node_task(
    "evaluation", _ROOM, build_held_out, name="evaluate held-out", run_name=_RUN_NAME
)
