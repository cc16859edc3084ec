"""One maker of a node at a time.

On a local store `flock`, which dies with its holder however that dies. On an object store an expiring lease
object, renewed while held: advisory (an object store has no compare-and-swap that all of them share), so it
saves work and is no guard of correctness; that is the manifest's, written last with the same bytes.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator

from tasks.store.paths import Store

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
    holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    released = threading.Event()

    def sign() -> None:
        store.write(path, json.dumps({"holder": holder, "until": time.time() + LEASE_S}).encode())

    while _holder(store, path) not in (None, holder):
        time.sleep(WAIT_S)
    sign()

    def renew() -> None:
        while not released.wait(LEASE_S / 3):
            sign()

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        released.set()
        renewing.join()
        store.remove(path)


def _holder(store: Store, path: str) -> str | None:
    """Who holds a lease that has not run out."""
    try:
        lease = json.loads(store.read(path))
        return str(lease["holder"]) if lease["until"] > time.time() else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # none, or a half-written one
        return None
