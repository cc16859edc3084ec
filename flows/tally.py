"""What one stage has come to in this run, and how fast: said the same on a terminal and on a server."""

import datetime
import time

from tasks.runtime.progress import Progress

_TRAINING = {
    "loss": "loss {:.3f}",
    "tokens_per_s": "{:,.0f} tokens/s",
    "mfu": "MFU {:.1%}",
    "learning_rate": "lr {:.2e}",
    "grad_norm": "norm {:.2f}",
}
"""What a training tells, the most wanted first: a narrow terminal leaves out the last."""


def time_left(word: Progress) -> str:
    """How long a training will take, where it says so."""
    if "eta_s" not in word.fields or word.done >= word.total:
        return ""
    return f", {datetime.timedelta(seconds=round(float(word.fields['eta_s'])))} left"


class Tally:
    """Adds up a stage's words; over this run alone, hits cost nothing."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._bytes = 0.0
        self._documents = 0.0

    def add(self, word: Progress) -> str:
        """Take in one word and say the rate."""
        self._bytes += float(word.fields.get("bytes", 0))
        self._documents += float(word.fields.get("documents", 0))
        if "tokens_per_s" in word.fields:
            return ", ".join(
                form.format(word.fields[name]) for name, form in _TRAINING.items() if name in word.fields
            )
        if self._began is None:  # the first word comes at the end of the first shard
            self._began = time.monotonic() - float(word.fields.get("seconds", 0))
        if self._bytes:
            seconds = max(1e-3, time.monotonic() - self._began)
            return f"{self._documents:,.0f} documents, {self._bytes / 1e6 / seconds:.1f} MB/s"
        return ""
