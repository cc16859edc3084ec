"""How a hot loop is compiled: numba, without the GIL, cached on disk beside its module."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on first call; threads then run it side by side. The first call of a machine takes seconds."""
    return cast(Callable[P, R], numba.njit(nogil=True, cache=True)(function))
