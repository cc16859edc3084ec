"""Run a module as a job in processes of its own, alone or one a rank under torchrun.

Children never outlive their parent: they get a session of their own, die with the parent's process
(PR_SET_PDEATHSIG), and their whole group is killed when the parent is interrupted. Output goes to a file, not
to a pipe, so that neither side waits for the other; what is new in it is handed on to logging, in the thread
that launched the job, so that a server shows it under the task that waits for it.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tasks.runtime.job import LAUNCHER, die_with_parent
from tasks.runtime.logs import Forwarder
from tasks.runtime.rendezvous import Rendezvous
from tasks.store.errors import JobError
from tasks.store.json import JSON

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_LAST_LINES = 15
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # OpenMP's threads spin while they wait: two on two busy cores trained a 0.6M model at 680 tokens/s,
    # sleeping ones at 9,600 (load 4.5, 2026-11-21)
    "OMP_WAIT_POLICY": "PASSIVE",
}


def launch(
    module: str,
    job: JSON,
    *,
    folder: Path,
    processes: int = 1,
    distributed: bool = False,
    rendezvous: Rendezvous | None = None,
    env: Mapping[str, str] | None = None,
    on_event: Callable[[JSON], None] | None = None,
) -> JSON:
    """Run `python -m module --job folder/job.json` to its end.

    Args:
        module: what to run.
        job: what it finds in job.json.
        folder: where job, log, events and result stand; made when missing.
        processes: ranks of this machine; more than one go through `torchrun --standalone`.
        distributed: go through torchrun with one process too.
        rendezvous: where torchrun meets that of other machines.
        env: more environment.
        on_event: called with each JSON line that the job emits.

    Returns:
        What the job wrote as its result.

    Raises:
        JobError: it ended without a result; carries the log's last lines and names the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("result.json", "events.jsonl"):
        (folder / name).unlink(missing_ok=True)
    job_file = folder / "job.json"
    job_file.write_text(json.dumps(job))
    words = [sys.executable, "-m"]
    if processes > 1 or distributed or rendezvous:
        meet = rendezvous.words() if rendezvous else ["--standalone"]
        words += ["torch.distributed.run", *meet, f"--nproc_per_node={processes}", "-m"]
    words += [module, "--job", str(job_file)]
    log = folder / "log.txt"
    output_lines = Forwarder(log)
    with log.open("ab") as output:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT, LAUNCHER: str(os.getpid()), **(env or {})},
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call; nothing in it takes a lock
        )
    logger.info("%s runs as process %d, its output is in %s", module, child.pid, log)
    try:
        code = _follow(child, folder / "events.jsonl", on_event, output_lines)
    finally:
        _kill_group(child)
    output_lines.finish()
    result = folder / "result.json"
    if code != 0 or not result.exists():
        failure = JobError(_told(module, code, log))
        failure.log = str(log)
        raise failure
    done: JSON = json.loads(result.read_text())
    return done


def _follow(
    child: subprocess.Popen[bytes],
    events: Path,
    on_event: Callable[[JSON], None] | None,
    output_lines: Forwarder,
) -> int:
    lines = _new_lines(events)
    while True:
        code = child.poll()
        for line in next(lines):
            if on_event is not None:
                on_event(json.loads(line))
        output_lines.look()
        if code is not None:
            return code
        time.sleep(_POLL_S)


def _new_lines(file: Path) -> Iterator[list[bytes]]:
    """Whole lines appended since the last look."""
    at, rest = 0, b""
    while True:
        fresh = b""
        if file.exists():
            with file.open("rb") as data:
                data.seek(at)
                fresh = data.read()
        at += len(fresh)
        *lines, rest = (rest + fresh).split(b"\n")
        yield lines


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _told(module: str, code: int, log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    error = next((line for line in reversed(lines) if line.startswith("error: ")), None)
    if error is not None:
        return f"{error.removeprefix('error: ')} (log: {log})"
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    return "\n".join([f"{module} {ended}; the last lines of {log}:", *lines[-_LAST_LINES:]])
