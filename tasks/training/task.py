"""Training as Prefect tasks."""

from tasks.policy import node_task
from tasks.training.config import REFERENCE_STAGE, STAGE
from tasks.training.reference import build_reference
from tasks.training.run import build_base, build_training

train_milestone = node_task(
    STAGE, "tasks.training", build_training, name="training milestone", run_name="train {shard}"
)
make_base = node_task(STAGE, "tasks.training", build_base, name="base", run_name="make {shard}")
score_reference = node_task(REFERENCE_STAGE, "tasks.training", build_reference, name="reference losses")
