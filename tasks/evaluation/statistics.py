"""Is a difference between two models more than chance? Paired, on the same documents or items.

Both models saw the same text, so what is uncertain is the difference per document, not each score: pairing
leaves out how hard the documents are, which is most of the variance. Differences are second minus first.
Numpy only, no I/O, no global randomness.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference with its standard error and 95 % interval."""

    first: float
    second: float
    difference: float
    stderr: float
    low: float
    high: float
    pairs: int

    @property
    def separable(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_bits_per_byte(
    first_nats: NDArray[np.float64],
    second_nats: NDArray[np.float64],
    num_bytes: NDArray[np.int64],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
) -> Difference:
    """Bits per byte of two models on the same documents, by a bootstrap over documents.

    Documents are drawn with replacement, both models' numbers together, and the ratio of sums is formed anew:
    a document counts by its length, and its tokens, which depend on each other, stay together. The interval
    is the percentiles 2.5 and 97.5.

    Args:
        first_nats: (num_docs,) negative log-likelihood under the first model.
        second_nats: (num_docs,) under the second, same documents, same order.
        num_bytes: (num_docs,) UTF-8 bytes of each.
        generator: where the draws come from; the same state gives the same answer.
        resamples: draws.

    Raises:
        ValueError: lengths differ, or there are fewer than two documents, or no bytes.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8 and 13.
    """
    count = _require_pairs(len(first_nats), len(second_nats), len(num_bytes))
    if num_bytes.sum() <= 0:
        raise ValueError(f"{count} documents hold no bytes; bits per byte is not defined")
    factor = 1 / math.log(2)
    per_document = np.stack([first_nats, second_nats, num_bytes.astype(np.float64)])
    first, second, size = (float(value) for value in per_document.sum(1))
    draws = np.empty(resamples)
    for number in range(resamples):
        weights = np.bincount(generator.integers(0, count, count), minlength=count)
        drawn = per_document @ weights
        draws[number] = (drawn[1] - drawn[0]) / drawn[2] * factor if drawn[2] else 0.0
    low, high = np.percentile(draws, [2.5, 97.5])
    return Difference(
        first=first / size * factor,
        second=second / size * factor,
        difference=(second - first) / size * factor,
        stderr=float(draws.std(ddof=1)),
        low=float(low),
        high=float(high),
        pairs=count,
    )


def paired_accuracy(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> Difference:
    """Accuracy of two models on the same items.

    The standard error is that of the mean of the items' differences (-1, 0, 1); the interval is normal.

    Args:
        first_correct: (num_items,) whether the first model was right.
        second_correct: (num_items,) the second, same items, same order.

    Raises:
        ValueError: lengths differ, or there are fewer than two items.
    """
    count = _require_pairs(len(first_correct), len(second_correct))
    differences = second_correct.astype(np.float64) - first_correct.astype(np.float64)
    difference = float(differences.mean())
    stderr = float(differences.std(ddof=1)) / math.sqrt(count)
    return Difference(
        first=float(first_correct.mean()),
        second=float(second_correct.mean()),
        difference=difference,
        stderr=stderr,
        low=difference - Z_95 * stderr,
        high=difference + Z_95 * stderr,
        pairs=count,
    )


def _require_pairs(*lengths: int) -> int:
    if len(set(lengths)) != 1:
        raise ValueError(
            f"found {' and '.join(map(str, lengths))} values; a paired comparison needs as many of each"
        )
    if lengths[0] < 2:
        raise ValueError(f"found {lengths[0]} pairs; a standard error needs at least 2")
    return lengths[0]
