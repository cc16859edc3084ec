"""A step of a bench in a process of its own: CPU time and peak memory are its alone."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def cpu_seconds() -> float:
    """Of this process so far, all its threads and the processes it waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def answer(steps: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """In the child: run the step that the command line names, and print what it found as the last line."""
    print(json.dumps(steps[sys.argv[1]](**json.loads(sys.argv[2]))))


def run(module: str, step: str, *, python: str, cores: Collection[int], **given: Any) -> dict[str, Any]:
    """Run a step of a module, pinned to `cores`.

    Returns:
        What it found, with `rss` (peak bytes of the largest process); `error` alone where it could not run.
    """
    os.sched_setaffinity(0, cores)  # inherited, so that no library counts other cores when it is imported
    words = [python, "-m", module, step, json.dumps(given)]
    env = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            return {"error": (err.read().strip().splitlines() or ["it died"])[-1]}
        found: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    return found | {"rss": usage.ru_maxrss * 1024}
