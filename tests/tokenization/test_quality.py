import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.tokenization.quality import judge, longest_runs, measure

LIMITS = {
    "max_unknown_fraction": 0.1,
    "max_byte_fallback_fraction": 0.5,
    "min_bytes_per_token": 1.05,
    "max_run_fraction": 0.3,
}


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=12))
@pytest.mark.slow
def test_longest_runs_equal_a_plain_loop(documents: list[list[int]]) -> None:
    def slow(document: list[int]) -> int:
        best = run = 0
        for number, token in enumerate(document):
            run = run + 1 if number and document[number - 1] == token else 1
            best = max(best, run)
        return best

    ids = np.array([i for d in documents for i in d], np.uint16)
    lengths = np.array([len(d) for d in documents], np.int64)
    assert longest_runs(ids, lengths).tolist() == [slow(d) for d in documents]


def verdicts(documents: list[list[int]], text_bytes: list[int]) -> list[str | None]:
    """Ids: 0 unknown, 2 EOS, 3..9 bytes, 10.. words."""
    ids = np.array([i for d in documents for i in d], np.uint16)
    byte_ids = np.zeros(200, np.bool_)
    byte_ids[3:10] = True
    lengths = np.array([len(d) for d in documents], np.int64)
    quality = measure(ids, lengths, np.array(text_bytes), eos_id=2, unknown_id=0, byte_ids=byte_ids)
    return judge(quality, **LIMITS)


def test_each_reason_is_given_for_what_it_means() -> None:
    words = list(range(10, 110))
    documents = [
        words,
        [],
        [*words, 2],
        [0] * 20 + words,
        [3, 4, 5, 6, 7, 8, 9] * 20 + words,
        words,
        [50] * 100,
    ]
    text_bytes = [400, 0, 400, 400, 400, 100, 400]
    assert verdicts(documents, text_bytes) == [
        None,
        "empty",
        "eos_in_text",
        "unknown_fraction",
        "byte_fallback_fraction",
        "bytes_per_token",
        "run_fraction",
    ]


def test_a_limit_itself_is_kept_and_short_documents_are_not_judged_by_runs() -> None:
    words = list(range(10, 100))
    assert verdicts([[0] * 10 + words, [50] * 9], [300, 30]) == [None, None]


def test_no_documents_have_no_verdicts() -> None:
    assert verdicts([], []) == []
