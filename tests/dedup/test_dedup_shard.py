import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.dedup.config import DedupConfig, HeldOutConfig, node, signatures_node
from tasks.dedup.index import INDEXES, Index, Indexes, index_behind
from tasks.dedup.shard import VERDICTS, build_verdicts, signature_schema
from tasks.store.errors import StoreDamaged
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table
from tests.oracles import minhash as oracle

MakeCorpus = Callable[..., Any]
VOCABULARY = [f"{a}{b}" for a in ("ka", "lo", "mi", "ne", "ru", "ta") for b in "bcdfghjklmnpqrstvwxz"]


def page(seed: int, words: int = 120) -> str:
    """A text of its own."""
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def edited(text: str, *, share: float, seed: int = 0) -> str:
    """A near copy: the last words replaced."""
    words = text.split()
    keep = len(words) - round(share * len(words))
    return " ".join(words[:keep] + page(seed + 10_000, len(words) - keep).split())


@pytest.mark.slow
def test_each_copy_goes_with_its_reason_and_names_the_kept_document(corpus: MakeCorpus) -> None:
    texts = [page(1), page(2), page(1).upper() + "\n", edited(page(2), share=0.05), page(3), page(9), ""]
    rows = corpus().add(texts, dropped=[4])
    assert [(r["id"], r["kept"], r["reason"], r["duplicate_of"]) for r in rows] == [
        ("d0", True, None, None),
        ("d1", True, None, None),
        ("d2", False, "exact", "d0"),
        ("d3", False, "near", "d1"),
        ("d5", True, None, None),
        ("d6", True, None, None),
    ]


def test_every_later_copy_of_an_accepted_document_goes_in_a_later_run(corpus: MakeCorpus) -> None:
    """Incremental modes of others keep two of three copies of an indexed document."""
    made = corpus()
    made.add([page(seed) for seed in range(40)])
    INDEXES.clear()  # another process, another day
    copies = [page(seed) for seed in range(40)] * 2 + [
        edited(page(s), share=0.03, seed=s) for s in range(40)
    ] * 2
    rows = made.add(copies, first=40)
    assert [row["duplicate_of"] for row in rows] == [f"d{seed}" for seed in range(40)] * 4
    assert [row["reason"] for row in rows] == ["exact"] * 80 + ["near"] * 80
    assert made.manifests[-1].dropped == {"exact": 80, "near": 80}


@functools.cache
def judged_plainly() -> tuple[list[str], list[tuple[str | None, str | None]]]:
    """Texts with copies near and far, and what all pairs say of them."""
    choose = random.Random(5)
    shares = [0, 0, 0.02, 0.1, 0.3]
    texts = [edited(page(choose.randrange(12)), share=choose.choice(shares), seed=i) for i in range(30)]
    plain = oracle.dedup(
        [oracle.signature(text) for text in texts],
        [oracle.exact_hash(text) for text in texts],
        threshold=0.7,
        num_bands=25,
        rows_per_band=5,
    )
    held = [int.from_bytes(oracle.exact_hash(text)[:8], "little") < 0.3 * 2**64 for text in texts]
    expected = [
        (reason or ("held_out" if aside else None), None if match is None else f"d{match}")
        for (reason, match), aside in zip(plain, held, strict=True)
    ]
    return texts, expected


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=4))
@pytest.mark.slow
def test_verdicts_do_not_depend_on_the_shards_or_the_runs(
    corpus: MakeCorpus, cuts: list[tuple[int, bool]]
) -> None:
    """Cut anywhere, and any of the shards the first of another run in another process."""
    texts, expected = judged_plainly()
    made = corpus(
        "-".join(f"{cut}{fresh}" for cut, fresh in cuts) + "x", held_out=HeldOutConfig(fraction=0.3)
    )
    rows, at = [], 0
    for cut, fresh in [*sorted(cuts), (len(texts), True)]:
        rows += made.add(texts[at:cut], first=at)
        at = max(at, cut)
        if fresh:
            INDEXES.clear()
    assert [(row["reason"], row["duplicate_of"]) for row in rows] == expected
    assert [row["kept"] for row in rows] == [reason is None for reason, _ in expected]


def test_later_copy_of_a_held_out_document_is_dropped_too(corpus: MakeCorpus) -> None:
    made = corpus(held_out=HeldOutConfig(fraction=0.5))
    rows = made.add([page(seed) for seed in range(30)])
    aside = [i for i, row in enumerate(rows) if row["reason"] == "held_out"]
    assert 5 < len(aside) < 25
    assert made.manifests[-1].dropped == {"held_out": len(aside)}
    INDEXES.clear()
    again = made.add([edited(page(seed), share=0.02, seed=seed) for seed in range(30)], first=30)
    assert [row["duplicate_of"] for row in again] == [f"d{seed}" for seed in range(30)]


def test_shard_rebuilt_after_damage_has_the_verdicts_it_had(corpus: MakeCorpus) -> None:
    made = corpus()
    for seed in (0, 10, 20):
        made.add([page(s) for s in range(seed, seed + 15)], first=seed * 10)
    middle = made.nodes[1]
    before = read_table(made.store, middle.path)
    made.store.remove(middle.path)
    build_node(made.store, middle, build_verdicts, room="tasks.dedup", shard="00001")
    assert read_table(made.store, middle.path).equals(before)


def test_index_is_carried_from_shard_to_shard_and_counts_kept_documents(corpus: MakeCorpus) -> None:
    made = corpus()
    made.add([page(1), page(2)])
    carried = INDEXES.take(made.store, made.nodes[0].fingerprint)
    assert carried is not None
    INDEXES.put(made.store, made.nodes[0].fingerprint, carried)
    made.add([page(2), page(3)], first=2)
    assert INDEXES.take(made.store, made.nodes[1].fingerprint) is carried
    assert made.manifests[-1].details["index_documents"] == carried.num_docs == 3


def test_index_goes_on_from_the_nearest_shard_that_is_held(corpus: MakeCorpus) -> None:
    made = corpus()
    for seed in (0, 10, 20):
        made.add([page(s) for s in range(seed, seed + 5)], first=seed)
    INDEXES.clear()
    first = index_behind(made.store, made.nodes[0].fingerprint, num_perm=128, matching=DedupConfig())
    INDEXES.put(made.store, made.nodes[0].fingerprint, first)
    last = index_behind(made.store, made.nodes[2].fingerprint, num_perm=128, matching=DedupConfig())
    assert last is first
    assert last.num_docs == 15


def test_held_indexes_are_few_and_are_handed_out_once(tmp_path: Any) -> None:
    held, store = Indexes(most=2), Store(str(tmp_path))
    made = [Index(8, DedupConfig()) for _ in range(3)]
    for name, index in zip("abc", made, strict=True):
        held.put(store, name, index)
    assert [held.take(store, name) for name in "abcc"] == [None, made[1], made[2], None]


def test_missing_predecessor_is_told_by_its_path(corpus: MakeCorpus) -> None:
    made = corpus()
    made.add([page(1)])
    INDEXES.clear()
    made.store.remove(made.nodes[0].path)
    with pytest.raises(StoreDamaged, match=made.nodes[0].path):
        made.add([page(2)], first=1)


def test_shard_of_which_the_filter_kept_nothing_is_judged_and_passes_the_index_on(corpus: MakeCorpus) -> None:
    made = corpus(config=DedupConfig(num_perm=64, num_bands=12))
    made.add([page(1)])
    assert made.add([page(5), page(6)], dropped=[0, 1], first=1) == []
    assert made.add([page(1)], first=3)[0]["duplicate_of"] == "d0"


def test_files_have_the_stores_columns(corpus: MakeCorpus) -> None:
    made = corpus()
    made.add([page(1), ""])
    signed = read_table(made.store, made.signatures[0].path)
    assert signed.schema.equals(signature_schema(128))
    assert read_table(made.store, made.nodes[0].path).schema.equals(VERDICTS)
    slots = np.array(signed["signature"].to_pylist(), np.uint32)
    np.testing.assert_array_equal(slots, [oracle.signature(page(1)), oracle.signature("")])
    assert signed["exact_hash"].to_pylist() == [oracle.exact_hash(page(1)), oracle.exact_hash("")]
    assert made.manifests[-1].details["without_words"] == 1


def test_values_are_the_ones_the_version_stands_for(
    corpus: MakeCorpus, golden: Callable[[str, Any], None], logical_digest: Callable[[pa.Table], str]
) -> None:
    made = corpus(held_out=HeldOutConfig(fraction=0.2))
    texts = [edited(page(seed % 8), share=0.05 * (seed // 8), seed=seed) for seed in range(24)]
    made.add([*texts, "漢字かな交じり文", "NAÏVE “quotes” — twice", "", "...", "two words"])
    made.add([page(3), page(30), "two  WORDS"], first=29)
    golden(
        "dedup/digests",
        {
            "versions": {n.stage: n.version for n in (made.nodes[0], made.signatures[0])},
            "signatures": [logical_digest(read_table(made.store, n.path)) for n in made.signatures],
            "verdicts": [logical_digest(read_table(made.store, n.path)) for n in made.nodes],
            "dropped": [m.dropped for m in made.manifests[1::2]],
        },
    )


def test_node_functions_of_the_room_agree_with_what_the_store_holds(corpus: MakeCorpus) -> None:
    made = corpus()
    made.add([page(1)])
    manifest = made.manifests[-1]
    assert manifest.stage == "dedup"
    assert manifest.inputs == {"signatures": made.signatures[0].fingerprint}
    assert node(DedupConfig(), HeldOutConfig(fraction=0.0), made.signatures[0], None).path == manifest.path
    assert signatures_node.__module__ == node.__module__
