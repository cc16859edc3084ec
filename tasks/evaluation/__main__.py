"""One unit in a process of its own: `python -m tasks.evaluation --job job.json`.

`kind` is `held_out`, `benchmark`, `samples` or `items`. What a user can act on ends up in result.json, and
the caller raises the same error; anything else is a traceback in the log.
"""

import os

from tasks.runtime.imports import import_for_good
from tasks.runtime.job import Job
from tasks.runtime.logs import log_to_output
from tasks.store.errors import DaptError

_MODULES = {
    "held_out": "tasks.evaluation.held_out",
    "benchmark": "tasks.evaluation.harness",
    "samples": "tasks.evaluation.samples",
    "items": "tasks.evaluation.items",
}


def main() -> None:
    """Do the unit of the job on the command line."""
    job = Job.from_argv()
    log_to_output()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # By name: lm-eval alone takes 2 s to import, and held-out units do without it.
    module = import_for_good(_MODULES[job.spec["kind"]])
    try:
        module.run(job)
    except DaptError as err:
        job.write_result({"error": {"kind": type(err).__name__, "text": str(err)}})


if __name__ == "__main__":
    main()
