"""One maker of a node at a time.

On a local store `flock`, which dies with its holder however that dies. On an object store an expiring lease
object, renewed while held: advisory (an object store has no compare-and-swap that all of them share), so it
saves work and is no guard of correctness; that is the manifest's, written last with the same bytes. The lease
of a killed holder runs out after a minute; on the holder's own machine its death is seen at once.
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.store.json import JSON
from tasks.store.paths import Store

logger = logging.getLogger(__name__)

LEASE_S = 60.0
WAIT_S = 1.0


@contextlib.contextmanager
def locked(store: Store, path: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a node, waiting for another holder to end.

    Args:
        store: where.
        path: of the node.
        shared: on a local store, beside others that share it.
    """
    if store.local is None:
        with lease(store, f"{path}/.lease", {}):
            yield
        return
    file = store.local_path(f"{path}/.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def is_locked(store: Store, path: str) -> bool:
    """Whether somebody makes a node just now."""
    if store.local is None:
        return leased(store, f"{path}/.lease") is not None
    try:
        with store.local_path(f"{path}/.lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    return False


@contextlib.contextmanager
def lease(store: Store, path: str, body: JSON) -> Iterator[None]:
    """Hold an expiring object of a remote store, renewed while held; `body` stands in it too."""
    me = {**body, "holder": f"{socket.gethostname()}-{secrets.token_hex(4)}", **_this_process()}
    released = threading.Event()

    def sign() -> None:
        store.write(path, json.dumps({**me, "until": time.time() + LEASE_S}).encode())

    told = None
    while (other := leased(store, path)) is not None:
        if other["holder"] != told:
            told = other["holder"]
            logger.info("waits for %s, who has %s", told, store.address(path.rpartition("/")[0]))
        time.sleep(WAIT_S)
    sign()

    def renew() -> None:
        while not released.wait(LEASE_S / 3):
            with contextlib.suppress(OSError):  # the store may answer again before the lease runs out
                sign()

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        released.set()
        renewing.join()
        there = leased(store, path)
        if there is None or there["holder"] == me["holder"]:  # else it ran out, and another's stands there
            store.remove(path)


def leased(store: Store, path: str) -> JSON | None:
    """What stands in a lease that has not run out."""
    try:
        found: JSON = json.loads(store.read(path))
        return found if found["until"] > time.time() and found["holder"] and not _is_dead(found) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # none, or a half-written one
        return None


def _this_process() -> JSON:
    """What a process is known by on its machine: boot, PID namespace, PID, and when it began (Linux)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    machine = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return {"machine": machine, "pid": os.getpid(), "began": _began("self")}


def _is_dead(lease: JSON) -> bool:
    """Whether a holder was a process of this machine that is gone."""
    if lease.get("machine") != _this_process()["machine"]:
        return False
    return _began(str(lease["pid"])) != str(lease["began"])


def _began(pid: str) -> str:
    """When a process began, in ticks since boot; empty when there is none (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
