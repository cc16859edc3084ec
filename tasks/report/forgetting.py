"""Losses that have a tolerance, in words: the command line, the report and runs on a server say the same."""

from collections.abc import Iterable

from tasks.report.config import Loss


def beyond(losses: Iterable[Loss]) -> list[Loss]:
    """Those that are surely more than the recipe allows."""
    return [loss for loss in losses if loss.beyond]


def sentence(loss: Loss) -> str:
    """One sentence: what was lost, how sure that is, and what is allowed."""
    if loss.is_slice:
        what, amount = "bits per byte", "{:+.2%}"
    else:
        what, amount = "accuracy", "{:+.4f}"
    sign = 1 if loss.is_slice else -1  # a loss of accuracy is told as a fall
    ends = sorted((sign * loss.low, sign * loss.high))
    low, high = (amount.format(end) for end in ends)
    return (
        f"after {loss.milestone} tokens, {loss.metric}: {what} went from {loss.base:.4f} to "
        f"{loss.score:.4f}, {amount.format(sign * loss.loss)} (95% interval {low} to {high}), "
        f"beyond the {amount.format(sign * loss.tolerance)} allowed"
    )
