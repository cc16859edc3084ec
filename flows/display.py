"""What a person sees of a run: one live bar a stage on a terminal, plain lines elsewhere; all on stderr."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from prefect.logging.handlers import APILogHandler
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from flows.terminal import log_to
from tasks.runtime import progress

_LINE_EVERY_S = 5.0
_OURS = ("tasks", "flows")


class _Tally:
    """What one stage has come to, and how fast: over this run alone, hits cost nothing."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.told = 0.0
        self.bytes = 0.0
        self.documents = 0.0

    def add(self, word: progress.Progress) -> str:
        """Take in one word and say the rate."""
        self.bytes += float(word.fields.get("bytes", 0))
        self.documents += float(word.fields.get("documents", 0))
        if "tokens_per_s" in word.fields:
            loss = word.fields.get("loss")
            told = f"loss {loss:.3f}, " if isinstance(loss, float) else ""
            return f"{told}{float(word.fields['tokens_per_s']):,.0f} tokens/s"
        if self.began is None:  # the first word comes at the end of the first shard
            self.began = time.monotonic() - float(word.fields.get("seconds", 0))
        if self.bytes:
            seconds = max(1e-3, time.monotonic() - self.began)
            return f"{self.documents:,.0f} documents, {self.bytes / 1e6 / seconds:.1f} MB/s"
        return ""


class Display:
    """Bars or lines, from the words that nodes at work tell."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._tallies: dict[str, _Tally] = {}
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
            tally = self._tallies.setdefault(key, _Tally())
            rate = tally.add(word)
            if self._console.is_terminal:
                self._draw(key, word, rate)
            elif time.monotonic() - tally.told > _LINE_EVERY_S or word.done >= word.total:
                tally.told = time.monotonic()
                done, total = f"{word.done:,.0f}", f"{word.total:,.0f}"
                self._console.print(
                    f"{key}: {done}/{total} {word.unit} {rate}".rstrip(), highlight=False, soft_wrap=True
                )

    def _draw(self, key: str, word: progress.Progress, rate: str) -> None:
        if key not in self._bars:
            self._bars[key] = self._live.add_task(key, total=word.total, unit=word.unit, rate=rate)
        self._live.update(self._bars[key], completed=word.done, total=word.total, rate=rate)


def set_up_logging(console: Console) -> None:
    """Our loggers to the console and, inside a run, to the Prefect server; Prefect's own to the server."""
    log_to(console)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("prefect") and isinstance(logger, logging.Logger):
            logger.handlers[:] = [h for h in logger.handlers if isinstance(h, APILogHandler)]
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(APILogHandler())
