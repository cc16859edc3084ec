"""Who uses a store: runs say so while they live, and what removes data waits for no one and harms no one.

A run writes `in-use/<id>.json` and holds its lock (a kernel lock on a local store, so it dies with its
process; a lease elsewhere), and waits while a removal is on its way. A removal takes its own lock, then
looks for runs. So of two that start at once, at least one sees the other: the run waits, or the removal
knows of it.
"""

import contextlib
import datetime
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator

from tasks.store.json import JSON
from tasks.store.lock import WAIT_S, lease, leased, locked
from tasks.store.paths import Store

USERS = "in-use"
_REMOVAL = "removal"
"""A folder at the store's root for the lock of who removes data."""


@contextlib.contextmanager
def using(store: Store, what: str) -> Iterator[None]:
    """Be known as a user of the store for a while; first waits for a removal to end.

    Args:
        store: which.
        what: the recipe's name, as people are told.
    """
    name = f"{USERS}/{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    body: JSON = {"recipe": what, "started": now}
    if store.local is None:
        with lease(store, name, body):
            while leased(store, f"{_REMOVAL}/.lease"):
                time.sleep(WAIT_S)
            yield
        return
    with contextlib.ExitStack() as held:
        with locked(store, _REMOVAL, shared=True):  # else it could be swept between its making and its lock
            file = store.local_path(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            entry = held.enter_context(file.open("w"))
            held.callback(file.unlink, missing_ok=True)
            fcntl.flock(entry, fcntl.LOCK_EX)
            entry.write(json.dumps(body))
            entry.flush()
        yield


@contextlib.contextmanager
def removing(store: Store) -> Iterator[list[JSON]]:
    """Remove data for a while: no run begins meanwhile; yields the entries of those that live."""
    with locked(store, _REMOVAL):
        yield live(store)


def live(store: Store) -> list[JSON]:
    """The entries of live runs: `recipe` and `started`; those of dead ones are left for who sweeps."""
    found = []
    for name in store.names(USERS):
        entry = _entry(store, f"{USERS}/{name}")
        if entry is not None:
            found.append(entry)
    return found


def _entry(store: Store, path: str) -> JSON | None:
    """What a live run says of itself, None where it is dead."""
    if store.local is None:
        return leased(store, path)
    try:
        with store.local_path(path).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return None
            found: JSON = json.loads(file.read() or "{}")
            return {"recipe": "?", "started": "", **found}
    except FileNotFoundError:  # it ended just now
        return None
