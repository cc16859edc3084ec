"""Losses that have a tolerance, in words: the command line, the report and runs on a server say the same."""

from collections.abc import Callable, Iterable

from tasks.report.numbers import decimal_text
from tasks.report.scored import Loss


def beyond(losses: Iterable[Loss]) -> list[Loss]:
    """Those that are surely more than the recipe allows."""
    return [loss for loss in losses if loss.beyond]


def sentence(loss: Loss) -> str:
    """What was lost, how sure that is, and what is allowed, without the full stop."""
    what = "bits per byte" if loss.is_slice else "accuracy"
    low, high = sorted((loss.low, loss.high), key=_signed(loss))
    return (
        f"{loss.metric}: {what} went from {decimal_text(loss.base, 4)} to {decimal_text(loss.score, 4)} "
        f"after {loss.milestone} tokens, {_change(loss, loss.loss)} (95% interval {_change(loss, low)} to "
        f"{_change(loss, high)}), beyond the {_change(loss, loss.tolerance)} allowed"
    )


def _signed(loss: Loss) -> Callable[[float], float]:
    """A loss as the change that it is: growth of bits per byte, a fall of accuracy."""
    return float.__pos__ if loss.is_slice else float.__neg__


def _change(loss: Loss, value: float) -> str:
    change = _signed(loss)(value)
    if loss.is_slice:
        return f"{decimal_text(100 * change, 2, sign=True)}%"
    return decimal_text(change, 4, sign=True)
