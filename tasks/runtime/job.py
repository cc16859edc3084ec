"""The subprocess' side of a job: what to do in `job.json`, what came of it in `result.json`.

Events in between are JSON lines in `events.jsonl`. Files, not pipes: a reader that dies takes nobody with it,
and a flow's death is noticed while its children live.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from tasks.store.json import JSON
from tasks.store.masking import mask_logs

LAUNCHER = "DAPT_LAUNCHER_PID"
"""In a job's environment: the process that launched it."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_launcher() -> None:
    """Die with the process that launched the job, also when it is gone already.

    Under torchrun a rank's parent is torchrun: from here on its death is ours. One that died earlier, while
    Python was still importing, is seen by looking for the launcher among our ancestors.
    """
    die_with_parent()
    launcher = os.environ.get(LAUNCHER)
    ancestor = os.getpid()
    while launcher is not None and ancestor != int(launcher):
        if ancestor <= 1:
            os._exit(1)
        ancestor = int(Path(f"/proc/{ancestor}/stat").read_text().rpartition(")")[2].split()[1])


class Job:
    """One job folder, as the process that works in it sees it."""

    def __init__(self, file: Path) -> None:
        self.folder = file.parent
        self.spec: JSON = json.loads(file.read_text())

    @classmethod
    def from_argv(cls) -> "Job":
        """The job named on the command line: `python -m tasks.<room> --job job.json`."""
        _end_with_launcher()
        mask_logs()
        words = sys.argv[1:]
        if len(words) != 2 or words[0] != "--job":
            sys.exit(f"expected --job FILE, found {' '.join(words) or 'nothing'}")
        return cls(Path(words[1]))

    def emit(self, event: JSON) -> None:
        """Tell the parent something: one JSON line, whole. For one process of a job (rank 0)."""
        line = (json.dumps(event) + "\n").encode()
        events = os.open(self.folder / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(events, line)
        finally:
            os.close(events)

    def write_result(self, result: JSON) -> None:
        """What the job came to; written last, whole or not at all."""
        temporary = self.folder / "result.json.part"
        temporary.write_text(json.dumps(result))
        temporary.replace(self.folder / "result.json")
