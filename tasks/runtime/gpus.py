"""The GPUs of this machine, each with one holder at a time, whichever worker, recipe or run it serves.

A pool counts runs; a training takes several GPUs and an evaluation one. So each GPU has a lock that dies with
its holder, and who waits for some first takes the gate, so that a training which needs all is not kept out by
evaluations that need one.
"""

import contextlib
import fcntl
import getpass
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.settings import visible_gpus

_LOOK_S = 0.2


@contextlib.contextmanager
def held_gpus(count: int) -> Iterator[dict[str, str]]:
    """Hold GPUs for a while, waiting until so many are free.

    Args:
        count: how many; all there are where there are fewer.

    Yields:
        The environment that shows a job just these; nothing on a machine without GPUs.
    """
    gpus = visible_gpus()
    if not gpus:
        yield {}
        return
    folder = Path(tempfile.gettempdir()) / f"dapt-gpus-{getpass.getuser()}"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        mine: list[str] = []
        with (folder / "gate.lock").open("a") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            while len(mine) < min(count, len(gpus)):
                gpu = next((gpu for gpu in gpus if gpu not in mine and _took(folder, gpu, held)), None)
                if gpu is None:
                    time.sleep(_LOOK_S)
                else:
                    mine.append(gpu)
        yield {"CUDA_VISIBLE_DEVICES": ",".join(sorted(mine, key=gpus.index))}


def _took(folder: Path, gpu: str, held: contextlib.ExitStack) -> bool:
    """Whether a GPU's lock was free, and now is held."""
    handle = (folder / f"{gpu}.lock").open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return False
    held.enter_context(handle)
    return True
