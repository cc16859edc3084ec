"""`python -m tasks.training --job job.json`: train a milestone; under torchrun one process a rank."""

from tasks.runtime.imports import import_for_good
from tasks.runtime.job import Job
from tasks.runtime.logs import log_to_output

if __name__ == "__main__":
    given = Job.from_argv()
    log_to_output()
    import_for_good("tasks.training.rank").run(given)
