"""The download of a source shard as a Prefect task."""

from tasks.download.config import STAGE
from tasks.download.shard import build_download
from tasks.policy import node_task

download_shard = node_task(STAGE, "tasks.download", build_download)
