"""Resident memory of this process, sampled while something runs."""

import os
import threading
from pathlib import Path
from types import TracebackType

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Resident set size of this process, in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


class PeakMemory:
    """The highest resident set size of this process between enter and exit, sampled every 50 ms.

    Threads share a process: what runs beside it is in the figure too.
    """

    def __enter__(self) -> "PeakMemory":
        self.peak_bytes = resident_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            self.peak_bytes = max(self.peak_bytes, resident_bytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, resident_bytes())
