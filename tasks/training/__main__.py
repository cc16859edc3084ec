"""`python -m tasks.training --job job.json`: train a milestone; under torchrun one process a rank."""

import logging
import sys

from tasks.runtime.job import Job
from tasks.store.errors import DaptError
from tasks.training.loop import train

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        train(Job.from_argv())
    except DaptError as err:
        sys.exit(f"error: {err}")
