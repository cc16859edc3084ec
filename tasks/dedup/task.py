"""The Prefect tasks of this room."""

from tasks.dedup.config import CONTAMINATION_STAGE, SIGNATURES_STAGE, STAGE
from tasks.dedup.decontaminate import build_contamination
from tasks.dedup.shard import build_signatures, build_verdicts
from tasks.policy import node_task

sign_shard = node_task(SIGNATURES_STAGE, "tasks.dedup", build_signatures)
contamination_shard = node_task(CONTAMINATION_STAGE, "tasks.dedup", build_contamination)
dedup_shard = node_task(STAGE, "tasks.dedup", build_verdicts)
