"""`python -m tasks.training --job job.json`: train a milestone; under torchrun one process a rank."""

import sys

from torch.distributed.elastic.multiprocessing.errors import record

from tasks.runtime.job import Job
from tasks.runtime.logs import log_to_output
from tasks.store.errors import DaptError
from tasks.training.loop import train

if __name__ == "__main__":
    log_to_output()
    try:
        record(train)(Job.from_argv())  # torchrun's last lines are then those of the rank that failed first
    except DaptError as err:
        sys.exit(f"error: {err}")
