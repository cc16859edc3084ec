"""Does a document fit the tokenizer? Four measures on flat ids, and a verdict with its reason.

A document that breaks into unknown tokens, bytes or one token over and over teaches a model nothing; usually
it is no text (binary, base64, a filler line) or of a script that the tokenizer does not know.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Quality:
    """One value a document, each (num_docs,)."""

    num_tokens: NDArray[np.int64]
    unknown_fraction: NDArray[np.float32]
    byte_fallback_fraction: NDArray[np.float32]
    bytes_per_token: NDArray[np.float32]
    longest_run: NDArray[np.int64]
    """Tokens in the longest run of one and the same token."""
    closed_early: NDArray[np.bool_]
    """Holds the EOS id: only where a tokenizer makes it of plain text, which would end the document twice."""


def measure(
    ids: NDArray[np.uint16 | np.uint32],
    lengths: NDArray[np.int64],
    text_bytes: NDArray[np.int64],
    *,
    eos_id: int,
    unknown_id: int,
    byte_ids: NDArray[np.bool_],
) -> Quality:
    """Measure documents.

    Args:
        ids: (num_tokens,), all documents' in order.
        lengths: (num_docs,) tokens a document.
        text_bytes: (num_docs,) UTF-8 bytes of its text.
        eos_id: what closes a document.
        unknown_id: -1: there is none.
        byte_ids: (vocab_size,) true for byte-fallback tokens.
    """
    tokens = np.maximum(lengths, 1)
    return Quality(
        num_tokens=lengths,
        unknown_fraction=(_sum(ids == unknown_id, lengths) / tokens).astype(np.float32),
        byte_fallback_fraction=(_sum(byte_ids[ids], lengths) / tokens).astype(np.float32),
        bytes_per_token=(text_bytes / tokens).astype(np.float32),
        longest_run=longest_runs(ids, lengths),
        closed_early=_sum(ids == eos_id, lengths) > 0,
    )


def longest_runs(ids: NDArray[np.uint16 | np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The longest run of one token in each document; 0 for an empty one. Runs end with their document."""
    longest = np.zeros(len(lengths), np.int64)
    if len(ids) == 0:
        return longest
    begins = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    present = lengths > 0
    new_run = np.empty(len(ids), np.bool_)
    new_run[0] = True
    np.not_equal(ids[1:], ids[:-1], out=new_run[1:])
    new_run[begins[present]] = True
    run_begins = np.flatnonzero(new_run)
    run_lengths = np.diff(run_begins, append=len(ids))
    first_run = np.searchsorted(run_begins, begins[present])
    longest[present] = np.maximum.reduceat(run_lengths, first_run)
    return longest


def judge(
    quality: Quality,
    *,
    max_unknown_fraction: float,
    max_byte_fallback_fraction: float,
    min_bytes_per_token: float,
    max_run_fraction: float,
) -> list[str | None]:
    """A reason a document to drop, None to keep; the first that applies, in this order."""
    tests = (
        ("empty", quality.num_tokens == 0),
        ("eos_in_text", quality.closed_early),
        ("unknown_fraction", quality.unknown_fraction > max_unknown_fraction),
        ("byte_fallback_fraction", quality.byte_fallback_fraction > max_byte_fallback_fraction),
        ("bytes_per_token", quality.bytes_per_token < min_bytes_per_token),
        ("run_fraction", quality.longest_run > max_run_fraction * np.maximum(quality.num_tokens, MIN_RUN)),
    )
    reasons: list[str | None] = [None] * len(quality.num_tokens)
    for reason, hit in reversed(tests):
        for number in np.flatnonzero(hit):
            reasons[number] = reason
    return reasons


MIN_RUN = 32
"""A document of a few tokens is not judged by its runs: a fraction of it is one or two tokens."""


def _sum(marks: NDArray[np.bool_], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count marks a document."""
    total = np.concatenate([[0], np.cumsum(marks, dtype=np.int64)])
    ends = np.cumsum(lengths)
    return np.asarray(total[ends] - total[ends - lengths], np.int64)
