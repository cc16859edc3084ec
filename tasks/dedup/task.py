"""The Prefect tasks of this room."""

from tasks.dedup.config import SIGNATURES_STAGE, STAGE
from tasks.dedup.shard import build_signatures, build_verdicts
from tasks.policy import node_task

sign_shard = node_task(SIGNATURES_STAGE, "tasks.dedup", build_signatures)
dedup_shard = node_task(STAGE, "tasks.dedup", build_verdicts)
