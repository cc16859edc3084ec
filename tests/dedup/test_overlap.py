"""Near-duplicates of held-out documents in another corpus."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from tasks.dedup.config import DedupConfig, HeldOutConfig
from tasks.dedup.index import columns
from tasks.dedup.overlap import count_near
from tasks.store.shard import iter_batches, read_table
from tests.dedup.conftest import Corpus

CONFIG = DedupConfig(threshold=0.6, num_perm=64, num_bands=20, rows_per_band=3)
WORDS = [f"word{number}" for number in range(400)]


def text(seed: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=60)


def near(words: list[str], seed: int, changed: int) -> list[str]:
    """So many words changed: the more, the less alike."""
    drawn = random.Random(seed)
    places = set(drawn.sample(range(len(words)), changed))
    return [drawn.choice(WORDS) if at in places else word for at, word in enumerate(words)]


def nodes(corpus: Corpus) -> list[tuple[str, str]]:
    return [(s.path, d.path) for s, d in zip(corpus.signatures, corpus.nodes, strict=True)]


def oracle(slice_of: Corpus, other: Corpus, most: int) -> tuple[int, int]:
    """All pairs, slot by slot: first documents held out of the one, documents kept of the other."""
    found = []
    for corpus, wanted in ((slice_of, "held_out"), (other, None)):
        rows = []
        for signed, judged in nodes(corpus):
            reasons = read_table(corpus.store, judged)["reason"].to_pylist()
            slots = np.concatenate([columns(batch)[0] for batch in iter_batches(corpus.store, signed)])
            rows += [row for row, reason in zip(slots, reasons, strict=True) if reason == wanted]
        found.append(rows)
    asked = found[0][:most]
    alike = [any((one == two).mean() >= CONFIG.threshold for two in found[1]) for one in asked]
    return len(asked), sum(alike)


@pytest.fixture
def corpora(corpus: Callable[..., Corpus]) -> tuple[Corpus, Corpus]:
    """A corpus in two shards with a slice, and one in three shards that has copies of every degree of it."""
    aside = HeldOutConfig(fraction=0.4)
    one = corpus("store", CONFIG, aside)
    other = Corpus(one.store.local, CONFIG, aside, None) if one.store.local else one
    for shard in range(2):
        one.add([" ".join(text(100 * shard + n)) for n in range(20)], first=1000 * shard)
    for shard, numbers in enumerate((range(0, 14), range(14, 20), range(100, 112))):
        texts = [" ".join(near(text(n), n, changed=n % 5)) for n in numbers]
        texts += [" ".join(text(9000 + n)) for n in numbers]
        other.add(texts, first=50_000 + 1000 * shard)
    return one, other


@pytest.mark.parametrize("most", [1000, 9, 1])
def test_the_count_is_that_of_all_pairs(corpora: tuple[Corpus, Corpus], most: int) -> None:
    one, other = corpora
    for slice_of, trained in ((one, other), (other, one)):
        expected = oracle(slice_of, trained, most)
        found = count_near(one.store, nodes(slice_of), nodes(trained), CONFIG, max_documents=most)
        assert found == expected
    total, alike = oracle(one, other, 1000)
    assert 0 < alike < total, "some are alike and some are not"


def test_what_the_other_corpus_holds_out_itself_does_not_count(corpora: tuple[Corpus, Corpus]) -> None:
    """It trains on none of it: an exact copy is held out in every corpus."""
    one, _ = corpora
    total, alike = count_near(one.store, nodes(one), nodes(one), CONFIG, max_documents=1000)
    assert (total > 0, alike) == (True, 0)


def test_without_a_slice_or_another_corpus_there_is_nothing(corpora: tuple[Corpus, Corpus]) -> None:
    one, other = corpora
    assert count_near(one.store, [], nodes(other), CONFIG, max_documents=9) == (0, 0)
    assert count_near(one.store, nodes(one), [], CONFIG, max_documents=9) == (9, 0)
