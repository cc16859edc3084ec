"""How many lines a document has, and how much of it stands on short ones."""

import numpy as np
from numpy.typing import NDArray

from tasks.text.kernel import kernel
from tasks.text.lines import count_chars, line_spans, strip


@kernel
def measure_length(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], short_line_characters: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Count the lines that are not blank, and the characters on the short ones.

    Args:
        offsets: (num_docs + 1,) see `text_buffers`.
        data: UTF-8 bytes.
        short_line_characters: a line of so many characters or fewer, stripped, is short.

    Returns:
        num_lines: (num_docs,) lines that are not blank.
        short_line_char_frac: (num_docs,) characters of the short ones, of all, less the whitespace
            at their ends; 0 without lines.
    """
    num_docs = len(offsets) - 1
    num_lines = np.zeros(num_docs, np.int32)
    fractions = np.zeros(num_docs)
    longest = 0
    for doc in range(num_docs):
        longest = max(longest, offsets[doc + 1] - offsets[doc])
    starts = np.empty(longest // 2 + 1, np.int64)
    stops = np.empty(longest // 2 + 1, np.int64)
    breaks = np.empty(longest // 2 + 1, np.int64)
    for doc in range(num_docs):
        start, stop = strip(data, offsets[doc], offsets[doc + 1])
        short, total = 0, 0
        for line in range(line_spans(data, start, stop, starts, stops, breaks)):
            first, last = strip(data, starts[line], stops[line])
            chars = count_chars(data, first, last)
            if chars > 0:
                num_lines[doc] += 1
                total += chars
                if chars <= short_line_characters:
                    short += chars
        if total > 0:
            fractions[doc] = short / total
    return num_lines, fractions
