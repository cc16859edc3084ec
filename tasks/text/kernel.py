"""How a hot loop is compiled: numba, without the GIL, cached on disk.

numba's own cache looks at the file of a function alone: when a kernel that it calls in another file changes,
it goes on running the old code. So the cache lies in a folder named by a digest of all files with kernels.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def _cache_folder() -> Path:
    """Where this version of all kernels is cached, for this user."""
    sources = sorted(Path(__file__).parents[1].glob("*/*.py"))
    digest = hashlib.sha256()
    for source in sources:
        text = source.read_bytes()
        if b"tasks.text.kernel" in text or source == Path(__file__):
            digest.update(source.name.encode() + b"\0" + text)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "daptflow" / "numba" / digest.hexdigest()[:16]


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_cache_folder())


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on first call; threads then run it side by side. The first call of a machine takes seconds."""
    return cast(Callable[P, R], numba.njit(nogil=True, cache=True)(function))
