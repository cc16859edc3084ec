"""Packing, and the list that is a corpus, as Prefect tasks."""

from tasks.packing.config import CORPUS_STAGE, STAGE
from tasks.packing.shard import build_corpus, build_packing
from tasks.policy import node_task

pack_shard = node_task(STAGE, "tasks.packing", build_packing)
commit_corpus = node_task(STAGE, "tasks.packing", build_corpus, name=CORPUS_STAGE, run_name="corpus {shard}")
