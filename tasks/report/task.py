"""The report as a Prefect task."""

from tasks.policy import node_task
from tasks.report.config import STAGE
from tasks.report.files import build_report

write_report = node_task(STAGE, "tasks.report", build_report, run_name="report {shard}")
