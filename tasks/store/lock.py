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

from tasks.store.config import JSON
from tasks.store.paths import Store

logger = logging.getLogger(__name__)

LEASE_S = 60.0
WAIT_S = 1.0


@contextlib.contextmanager
def locked(store: Store, path: str) -> Iterator[None]:
    """Hold the lock of a node, waiting for another holder to end."""
    if store.local is None:
        with _lease(store, f"{path}/.lease"):
            yield
        return
    file = store.local_path(f"{path}/.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _lease(store: Store, path: str) -> Iterator[None]:
    me = {"holder": f"{socket.gethostname()}-{secrets.token_hex(4)}", **_this_process()}
    released = threading.Event()

    def sign() -> None:
        store.write(path, json.dumps({**me, "until": time.time() + LEASE_S}).encode())

    told = None
    while (other := _holder(store, path)) is not None:
        if other != told:
            logger.info("waits for %s, who makes %s", other, store.address(path.rpartition("/")[0]))
            told = other
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
        if _holder(store, path) in (None, me["holder"]):  # else it ran out, and another's stands there
            store.remove(path)


def _holder(store: Store, path: str) -> str | None:
    """Who holds a lease that has not run out."""
    try:
        lease = json.loads(store.read(path))
        if lease["until"] <= time.time() or _is_dead(lease):
            return None
        return str(lease["holder"])
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
