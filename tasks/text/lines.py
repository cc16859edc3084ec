r"""Lines and paragraphs of UTF-8 text.

A line break is `\n`, `\r\n` or a lone `\r`. The text of a document is what is left when whitespace
(Unicode's) is stripped from both its ends. Its lines stand between runs of line breaks, so none is
empty, though one may be blank; a paragraph goes on over single line breaks and ends at two or more.
Whatever the line ends were, the same text has the same lines, paragraphs and lengths: a break counts as
one character.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import combine
from tasks.text.kernel import kernel
from tasks.text.words import SPACE, char_class, char_width

_LF, _CR = 10, 13


@kernel
def strip(data: NDArray[np.uint8], start: int, stop: int) -> tuple[int, int]:
    """The span of `data[start:stop]` without the whitespace at its ends; empty if there is no more."""
    while start < stop and char_class(data, start, stop) == SPACE:
        start += char_width(data, start, stop)
    while stop > start:
        last = stop - 1
        while last > start and (data[last] & 0xC0) == 0x80:
            last -= 1
        if char_class(data, last, stop) != SPACE:
            break
        stop = last
    return start, stop


@kernel
def count_chars(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Code points of `data[start:stop]`."""
    chars = 0
    for at in range(start, stop):
        chars += (data[at] & 0xC0) != 0x80
    return chars


@kernel
def line_spans(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    breaks: NDArray[np.int64],
) -> int:
    """Where the lines of a document stand.

    Args:
        data: UTF-8 bytes.
        start: of the document, stripped.
        stop: of the document, stripped.
        starts: (>= (stop - start) / 2 + 1,) filled with the first byte of each line.
        stops: likewise with the byte after each line.
        breaks: likewise with the line breaks before it: 0 for the first, 2 or more where a paragraph begins.

    Returns:
        The number of lines, 0 for an empty document.
    """
    count, at, found = 0, start, 0
    while at < stop:
        starts[count] = at
        breaks[count] = found
        while at < stop and data[at] != _LF and data[at] != _CR:
            at += 1
        stops[count] = at
        count += 1
        found = 0
        while at < stop and (data[at] == _LF or data[at] == _CR):
            if data[at] == _CR and at + 1 < stop and data[at + 1] == _LF:
                at += 1
            at += 1
            found += 1
    return count


@kernel
def paragraphs_of(
    count: int,
    breaks: NDArray[np.int64],
    line_hashes: NDArray[np.uint64],
    line_chars: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    chars: NDArray[np.int64],
) -> int:
    """Put lines together to paragraphs.

    Args:
        count: the number of lines.
        breaks: see `line_spans`.
        line_hashes: (>= count,) a hash a line.
        line_chars: (>= count,) code points a line.
        hashes: (>= count,) filled with a hash a paragraph.
        chars: (>= count,) filled with its code points, the breaks between its lines included.

    Returns:
        The number of paragraphs.
    """
    paragraphs = 0
    for line in range(count):
        if line == 0 or breaks[line] > 1:
            hashes[paragraphs] = line_hashes[line]
            chars[paragraphs] = line_chars[line]
            paragraphs += 1
        else:
            hashes[paragraphs - 1] = combine(hashes[paragraphs - 1], line_hashes[line])
            chars[paragraphs - 1] += 1 + line_chars[line]
    return paragraphs
