"""Is a difference between two models more than chance? Paired, on the same documents or items.

Both models saw the same text, so what is uncertain is the difference per document, not each score: pairing
leaves out how hard the documents are, which is most of the variance. Differences are second minus first; p is
two-sided. Whoever makes several comparisons corrects them with `holm` before calling one a finding.
Numpy only, no I/O, no global randomness.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""

RESAMPLES = 10_000
"""Draws of a bootstrap: p goes down to 2e-4, which Holm over 200 metrics still leaves below .05."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference with its standard error, 95 % interval and two-sided p."""

    first: float
    second: float
    difference: float
    stderr: float
    low: float
    high: float
    p: float
    pairs: int

    @property
    def separable(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """A difference of the means of several benchmarks, also relative to the first: second / first - 1."""

    first: float
    second: float
    difference: float
    stderr: float
    low: float
    high: float
    p: float
    relative: float | None
    """None: the first has nothing right."""
    relative_low: float | None
    relative_high: float | None


def paired_bits_per_byte(
    first_nats: NDArray[np.float64],
    second_nats: NDArray[np.float64],
    num_bytes: NDArray[np.int64],
    *,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Difference:
    """Bits per byte of two models on the same documents, by a bootstrap over documents.

    Documents are drawn with replacement, both models' numbers together, and the ratio of sums is formed anew:
    a document counts by its length, and its tokens, which depend on each other, stay together. The interval
    is the percentiles 2.5 and 97.5; p is twice the smaller share of draws on one side of 0, but never below
    2 ** (1 - num_docs): were the models alike, that often all documents would change in one direction.

    Args:
        first_nats: (num_docs,) negative log-likelihood under the first model.
        second_nats: (num_docs,) under the second, same documents, same order.
        num_bytes: (num_docs,) UTF-8 bytes of each.
        generator: where the draws come from; the same state gives the same answer.
        resamples: draws.

    Raises:
        ValueError: lengths differ, or there are fewer than two documents, or no bytes.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8, 13 and 15.
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
        p=max(_bootstrap_p(draws), 2.0 ** (1 - count)),
        pairs=count,
    )


def paired_accuracy(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> Difference:
    """Accuracy of two models on the same items.

    p is McNemar's exact one. The standard error is that of the mean of the items' differences (-1, 0, 1). The
    interval is Bonett and Price's: the normal one after one item more was counted for each model, so that two
    models with the same answers on 20 items are not said to be the same for certain.

    Args:
        first_correct: (num_items,) whether the first model was right.
        second_correct: (num_items,) the second, same items, same order.

    Raises:
        ValueError: lengths differ, or there are fewer than two items.

    Source: Bonett and Price, Adjusted Wald confidence interval for a difference of binomial proportions based
    on paired data, 2012; recommended by Fagerland, Lydersen and Laake, Statistics in Medicine 33, 2014.
    """
    count = _require_pairs(len(first_correct), len(second_correct))
    differences = second_correct.astype(np.float64) - first_correct.astype(np.float64)
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    more, fewer = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    reach = Z_95 * math.sqrt((more + fewer - (more - fewer) ** 2) / (count + 2))
    return Difference(
        first=float(first_correct.mean()),
        second=float(second_correct.mean()),
        difference=float(differences.mean()),
        stderr=float(differences.std(ddof=1)) / math.sqrt(count),
        low=max(-1.0, more - fewer - reach),
        high=min(1.0, more - fewer + reach),
        p=mcnemar(gained, lost),
        pairs=count,
    )


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of a change on paired items: a coin thrown once for each item that changed.

    Args:
        gained: items that only the second model has right.
        lost: items that only the first has right.

    Source: McNemar, Psychometrika 12, 1947; exact as in Agresti, Categorical Data Analysis, section 11.1.
    """
    throws = gained + lost
    ways = tail = 1
    for number in range(min(gained, lost)):
        ways = ways * (throws - number) // (number + 1)
        tail += ways
    chance: float = 2 * tail / 2**throws  # whole numbers until here: no rounding however many throws
    return min(1.0, chance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of several comparisons: calling those below alpha findings errs at all in alpha of runs.

    Step-down: the smallest p times their number, the next times one less, never below the one before. It asks
    nothing of how the comparisons depend on each other.

    Returns:
        One for each, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, number in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = reached
    return adjusted


def smallest_difference(pairs: int, discordance: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference in accuracy that a comparison would have found in `power` of runs.

    (z[1 - alpha/2] + z[power]) sqrt(discordance / pairs). A difference cannot exceed the share of items that
    change, so with less than that the discordance of the smallest difference itself is taken.

    Args:
        pairs: items that both models answered.
        discordance: share of them that only one model has right.
        alpha: two-sided, of one comparison.
        power: share of runs.

    Source: Connor, Sample size for testing differences in proportions for the paired-sample design, 1987, to
    first order.
    """
    normal = NormalDist()
    sigmas = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return min(1.0, sigmas * math.sqrt(max(discordance, sigmas**2 / pairs) / pairs))


def group_difference(
    benchmarks: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    *,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> GroupDifference:
    """The unweighted mean of several benchmarks' accuracies, by a bootstrap over items within each.

    An item has one of four outcomes (both right, one, the other, neither), so items drawn with replacement
    are one multinomial draw of how often each outcome occurs, whatever the number of items.

    Args:
        benchmarks: (first_correct, second_correct) of each, (num_items,), same items, same order.
        generator: where the draws come from.
        resamples: draws.

    Raises:
        ValueError: no benchmark; lengths differ within one, or it has fewer than two items.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8 and 13.
    """
    if not benchmarks:
        raise ValueError("found no benchmark; a mean needs at least one")
    first = second = 0.0
    first_draws, second_draws = np.zeros((2, resamples))
    for first_correct, second_correct in benchmarks:
        count = _require_pairs(len(first_correct), len(second_correct))
        outcomes = np.bincount(2 * first_correct.astype(np.int64) + second_correct, minlength=4)
        drawn = generator.multinomial(count, outcomes / count, resamples) / count
        first, second = first + float(first_correct.mean()), second + float(second_correct.mean())
        first_draws += drawn[:, 2] + drawn[:, 3]
        second_draws += drawn[:, 1] + drawn[:, 3]
    differences = (second_draws - first_draws) / len(benchmarks)
    low, high = np.percentile(differences, [2.5, 97.5])
    relative: list[float] | list[None] = [None, None, None]
    if first:
        ratios = second_draws[first_draws > 0] / first_draws[first_draws > 0]
        relative = [float(ratio - 1) for ratio in (second / first, *np.percentile(ratios, [2.5, 97.5]))]
    return GroupDifference(
        first=first / len(benchmarks),
        second=second / len(benchmarks),
        difference=(second - first) / len(benchmarks),
        stderr=float(differences.std(ddof=1)),
        low=float(low),
        high=float(high),
        p=_bootstrap_p(differences),
        relative=relative[0],
        relative_low=relative[1],
        relative_high=relative[2],
    )


def _bootstrap_p(draws: NDArray[np.float64]) -> float:
    """Two-sided, of no difference; the estimate itself counts as a draw, so it is never 0."""
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(draws) + 1))


def _require_pairs(*lengths: int) -> int:
    if len(set(lengths)) != 1:
        raise ValueError(
            f"found {' and '.join(map(str, lengths))} values; a paired comparison needs as many of each"
        )
    if lengths[0] < 2:
        raise ValueError(f"found {lengths[0]} pairs; a standard error needs at least 2")
    return lengths[0]
