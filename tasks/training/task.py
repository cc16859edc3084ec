"""Training as Prefect tasks."""

from tasks.policy import node_task
from tasks.training.config import STAGE
from tasks.training.run import build_base, build_training

train_milestone = node_task(
    STAGE, "tasks.training", build_training, name="training milestone", run_name="train {shard}"
)
make_base = node_task(STAGE, "tasks.training", build_base, name="base", run_name="make {shard}")
