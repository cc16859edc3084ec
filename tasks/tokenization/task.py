"""Tokenization as Prefect tasks."""

from tasks.policy import node_task
from tasks.tokenization.config import STAGE, TOKENIZER_STAGE
from tasks.tokenization.shard import build_tokenization, build_tokenizer

tokenize_shard = node_task(STAGE, "tasks.tokenization", build_tokenization)
make_tokenizer = node_task(
    STAGE, "tasks.tokenization", build_tokenizer, name=TOKENIZER_STAGE, run_name="tokenizer {shard}"
)
