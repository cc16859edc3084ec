"""Digests of source files, and other facts that cannot change, remembered in the store.

A local file's digest is the sha256 of its bytes, remembered by path, size, mtime and inode, so that a file is
hashed once and a list of thousands costs a `stat` each. An object store tells a version id or an ETag; the
Hub a sha256 (`tasks/download/hub.py`). Beside digests stand facts that hold for ever because their key names
a content: the row groups of a Parquet file by its digest, the files of a data set by its commit.

All of it is a memory, never data: `digests.json` in the store, removed at will, rebuilt by the next listing.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

from tasks.download.addresses import is_local, object_digest, sha256_of, told
from tasks.store.paths import Store

NAME = "digests.json"
RECENT_NS = 2_000_000_000
"""A file this young may be written again within one tick of its mtime: its digest is not remembered."""


class DigestMemory:
    """What is known of source files; read when first asked, written by `save`.

    Args:
        store: where it is remembered.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Any] = _load(store)
        self._new: dict[str, Any] = {}

    def of(self, address: str) -> tuple[str, int]:
        """Digest and size of a file.

        Raises:
            SourceError: it is not there, or its host tells nothing that stands for its contents.
            TransientError: the network failed.
        """
        if not is_local(address):
            return object_digest(address)
        return self.remembered(address) or self._of_local(address)

    def remembered(self, address: str) -> tuple[str, int] | None:
        """The same of a local file that is as it was when it was hashed: at once."""
        known = self._known.get(address)
        if not isinstance(known, list) or not is_local(address):
            return None
        try:
            status = os.stat(address)  # noqa: PTH116 - half the cost of Path.stat, 20,000 times
        except OSError:
            return None
        if known[:3] != [status.st_size, status.st_mtime_ns, status.st_ino]:
            return None
        return str(known[3]), status.st_size

    def _of_local(self, path: str) -> tuple[str, int]:
        with told(path):
            status = os.stat(path)  # noqa: PTH116 - as above
            facts = [status.st_size, status.st_mtime_ns, status.st_ino]
            digest = sha256_of(path, *facts)
        if time.time_ns() - status.st_mtime_ns > RECENT_NS:
            self._new[path] = [*facts, digest]
        return digest, status.st_size

    def fact(self, key: str, find: Callable[[], Any]) -> Any:
        """A fact in plain JSON whose key names a content: found once, then remembered."""
        for known in (self._new, self._known):
            if key in known:
                return known[key]
        self._new[key] = found = find()
        return found

    def save(self) -> None:
        """Write what was learnt, beside what others wrote meanwhile."""
        if not self._new:
            return
        self._known = _load(self._store) | self._known | self._new
        self._new = {}
        self._store.write(NAME, json.dumps(self._known, separators=(",", ":")).encode())


def _load(store: Store) -> dict[str, Any]:
    try:
        known = json.loads(store.read(NAME))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
