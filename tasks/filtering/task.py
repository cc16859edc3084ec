"""Filtering as a Prefect task."""

from tasks.filtering.config import STAGE
from tasks.filtering.shard import build_filtering
from tasks.policy import node_task

filter_shard = node_task(STAGE, "tasks.filtering", build_filtering)
