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

from tasks.store.config import JSON
from tasks.store.paths import Store

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
    holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    released = threading.Event()

    def sign() -> None:
        until = {"holder": holder, "until": time.time() + LEASE_S}
        store.write(path, json.dumps({**body, **until}).encode())

    while (found := leased(store, path)) is not None and found["holder"] != holder:
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


def leased(store: Store, path: str) -> JSON | None:
    """What stands in a lease that has not run out."""
    try:
        found: JSON = json.loads(store.read(path))
        return found if found["until"] > time.time() and found["holder"] else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # none, or a half-written one
        return None
