"""How far a node is: told by whoever computes, heard by whoever shows it (a terminal, a Prefect artifact).

Listeners are called in the computing thread, so they only take notes. Where nobody listens it costs nothing.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """One word from a node at work."""

    stage: str
    shard: str
    done: float
    total: float
    unit: str
    fields: dict[str, float | str] = field(default_factory=dict)


_listeners: list[Callable[[Progress], None]] = []


@contextlib.contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Hear every progress of this process for a while."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(progress: Progress) -> None:
    """Tell all who listen."""
    for listener in list(_listeners):
        listener(progress)
