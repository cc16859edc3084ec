"""What a person sees of a run: one live bar a stage on a terminal, plain lines elsewhere; all on stderr."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from prefect.logging.handlers import APILogHandler
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from flows.server import log_to_server
from flows.tally import Tally, time_left
from flows.terminal import log_to
from tasks.runtime import progress

_LINE_EVERY_S = 5.0
_BESIDE_RATE = 78
"""Columns of a bar's line beside what it tells of the rate."""


class Display:
    """Bars or lines, from the words that nodes at work tell."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._told: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self._live = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
        )

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Show progress for a while."""
        with progress.listening(self._hear):
            if not self._console.is_terminal:
                yield
                return
            with self._live:
                yield

    def _hear(self, word: progress.Progress) -> None:
        if word.unit != "shards" and word.stage not in ("training", "evaluation"):
            return  # within a data shard: the stage's bar counts shards
        key = word.stage if word.unit == "shards" else f"{word.stage} {word.shard}"
        with self._lock:
            rate = self._tallies.setdefault(key, Tally()).add(word)
            if self._console.is_terminal:
                self._draw(key, word, rate)
            elif time.monotonic() - self._told.get(key, 0) > _LINE_EVERY_S or word.done >= word.total:
                self._told[key] = time.monotonic()
                done, total = f"{word.done:,.0f}", f"{word.total:,.0f}"
                line = f"{key}: {done}/{total} {word.unit} {rate}{time_left(word)}".rstrip()
                self._console.print(line, highlight=False, soft_wrap=True)

    def _draw(self, key: str, word: progress.Progress, rate: str) -> None:
        if key not in self._bars:
            self._bars[key] = self._live.add_task(key, total=word.total, unit=word.unit, rate=rate)
        parts = rate.split(", ")
        while len(parts) > 2 and len(", ".join(parts)) > self._console.width - _BESIDE_RATE:
            parts.pop()  # whole ones, the least wanted; else the bar itself goes
        self._live.update(self._bars[key], completed=word.done, total=word.total, rate=", ".join(parts))


def set_up_logging(console: Console) -> None:
    """Our loggers to the console and, inside a run, to the Prefect server; Prefect's own to the server."""
    log_to(console)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("prefect") and isinstance(logger, logging.Logger):
            logger.handlers[:] = [h for h in logger.handlers if isinstance(h, APILogHandler)]
    log_to_server()
