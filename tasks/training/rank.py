"""One rank's process, in which torchrun looks for what it failed of."""

import os
import sys

from torch.distributed.elastic.multiprocessing.errors import ErrorHandler, record

from tasks.runtime.job import Job
from tasks.store.errors import DaptError
from tasks.training.loop import train

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Where torchrun looks for what a rank failed of."""


class WholeErrors(ErrorHandler):
    """Tells torchrun of an error in one piece: over a half-written file it fails itself (2.13)."""

    def record_exception(self, e: BaseException) -> None:
        """Write the error beside its place, then move it there."""
        final = os.environ.get(ERROR_FILE)
        if final is None:
            super().record_exception(e)
            return
        os.environ[ERROR_FILE] = f"{final}.part"
        super().record_exception(e)
        os.replace(f"{final}.part", final)  # noqa: PTH105 - both are plain names


def run(job: Job) -> None:
    """Train; what a user can act on ends the process with one line."""
    try:
        # torchrun's last lines are then those of the rank that failed first
        record(train, WholeErrors())(job)
    except DaptError as err:
        sys.exit(f"error: {err}")
