"""The evaluation's Prefect tasks."""

from tasks.evaluation.unit import build_benchmark, build_held_out
from tasks.policy import node_task

evaluate_benchmark = node_task("evaluation", "tasks.evaluation", build_benchmark, name="evaluate benchmark")
evaluate_held_out = node_task("evaluation", "tasks.evaluation", build_held_out, name="evaluate held-out")
