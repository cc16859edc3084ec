"""Which 13-grams a document shares with items, as the definition says: slow, and plain."""

from collections.abc import Sequence

from tests.oracles.minhash import words

NGRAM = 13


def ngrams(text: str) -> list[tuple[str, ...]]:
    """Every 13 words in a row of a text."""
    found = words(text)
    return [tuple(found[at : at + NGRAM]) for at in range(len(found) - NGRAM + 1)]


def find(items: Sequence[str], documents: Sequence[str]) -> list[tuple[int, int]]:
    """How many of a document's n-grams stand in an item, and the first such item of the first; -1: none."""
    first: dict[tuple[str, ...], int] = {}
    for number, item in enumerate(items):
        for ngram in ngrams(item):
            first.setdefault(ngram, number)
    found = [[first[ngram] for ngram in ngrams(document) if ngram in first] for document in documents]
    return [(len(hits), hits[0] if hits else -1) for hits in found]
