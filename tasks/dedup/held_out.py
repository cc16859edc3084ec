"""Which documents are held out: those whose hash falls below the fraction.

A function of the text alone (unsalted, no seed, no position): the same document is held out in every corpus,
shard cut and order, and a larger fraction holds out the same documents and more.
"""

import numpy as np
from numpy.typing import NDArray


def held_out(text_hashes: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Whether each document is held out.

    Args:
        text_hashes: (num_docs,), evenly spread.
        fraction: at least 0, below 1.

    Returns:
        (num_docs,).
    """
    assert 0.0 <= fraction < 1.0, fraction
    return text_hashes < np.uint64(int(fraction * 2**64))
