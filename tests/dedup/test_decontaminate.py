import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.dedup.config import DedupConfig, HeldOutConfig, contamination_node, node, signatures_node
from tasks.dedup.decontaminate import NGRAM, BenchmarkNgrams
from tasks.dedup.index import INDEXES
from tasks.dedup.shard import VERDICTS
from tasks.store.node import Node
from tasks.store.shard import read_table
from tests.oracles import decontamination as oracle

MakeCorpus = Callable[..., Any]
QUESTION = (
    "Which of the following best explains why the moon is seen in different phases\n"
    "A. its orbit\nB. its spin\nC. clouds\nD. the sun's age\nA"
)
PASSAGE = "Ethanol fuel -- all biomass needs to be grown, collected, dried, fermented, distilled and burned."
ITEMS = pa.table(
    {
        "benchmark": ["boolq", "mmlu", "mmlu", "piqa"],
        "task": ["boolq", "mmlu_astronomy", "mmlu_astronomy", "piqa"],
        "doc_id": pa.array([4, 0, 1, 7], pa.int64()),
        "text": [PASSAGE, "What is light? " * 4 + "a wave", QUESTION, "how to boil an egg in water"],
    }
)


def prose(seed: int, words: int = 60) -> str:
    """A text of its own."""
    chosen = random.Random(seed)
    return " ".join("".join(chosen.choices("aeioulmnrst", k=6)) for _ in range(words))


def quoting(text: str, seed: int) -> str:
    """A text of its own around another."""
    return f"{prose(seed)} {text} {prose(seed + 1000)}"


def shared(items: list[str], documents: list[str]) -> list[tuple[int, int]]:
    found, first = BenchmarkNgrams.of(pa.array(items, pa.string())).find(
        pa.array(documents, pa.large_string())
    )
    return list(zip(found.tolist(), first.tolist(), strict=True))


TEXTS = st.lists(
    st.sampled_from(["a", "A", "b", "É", "é", "漢", "、", "...", "-", "“c”", "\n", "\u00a0", "\U0001f600"]),
    max_size=60,
).map(" ".join)


@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=4))
def test_shared_ngrams_are_those_of_the_plain_definition(items: list[str], documents: list[str]) -> None:
    documents += [f"{documents[0]} {item} b" for item in items if documents]
    assert shared(items, documents) == oracle.find(items, documents)


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: text.replace(" ", "\r\n\t "),
        lambda text: text.replace(".", ")").replace(",", " ;"),
        lambda text: f"“{text.replace('-', '…')}”",
    ],
)
def test_case_spacing_and_punctuation_hide_no_item(change: Callable[[str], str]) -> None:
    whole = len(oracle.ngrams(PASSAGE))
    assert shared([QUESTION, PASSAGE], [quoting(change(PASSAGE), 1)]) == [(whole, 1)]


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not() -> None:
    words = prose(5, 40).split()
    for length, found in ((NGRAM - 1, (0, -1)), (NGRAM, (1, 0)), (NGRAM + 1, (2, 0))):
        assert shared([" ".join(words)], [quoting(" ".join(words[9 : 9 + length]), 6)]) == [found]
    interrupted = [*words[:12], "not", *words[12:24]]
    assert shared([" ".join(words)], [" ".join(interrupted)]) == [(0, -1)]


def test_an_ngram_neither_begins_in_one_text_nor_ends_in_the_next() -> None:
    words = prose(7, 26).split()
    halves = [" ".join(words[:7]), " ".join(words[7:14])]
    assert shared([" ".join(words)], halves) == [(0, -1), (0, -1)]
    assert shared(halves, [" ".join(words)]) == [(0, -1)]


def planted() -> list[str]:
    """Documents of which 1, 3 and 5 hold an item, and 4 says what 0 says."""
    return [
        prose(1),
        quoting(QUESTION.lower(), 2),
        prose(3),
        quoting(f"  {PASSAGE.upper()}", 4),
        prose(1),
        quoting("moon " + QUESTION, 5),
    ]


def test_dropped_documents_are_counted_by_benchmark_and_name_the_item(corpus: MakeCorpus) -> None:
    made = corpus(config=DedupConfig(decontaminate="drop"), items=ITEMS)
    rows = made.add(planted())
    assert [(row["id"], row["reason"], row["contaminated_by"]) for row in rows] == [
        ("d0", None, None),
        ("d1", "contaminated", "mmlu_astronomy:1"),
        ("d2", None, None),
        ("d3", "contaminated", "boolq:4"),
        ("d4", "exact", None),
        ("d5", "contaminated", "mmlu_astronomy:1"),
    ]
    assert made.manifests[-1].dropped == {"contaminated": 3, "exact": 1}
    assert made.manifests[-1].details["contaminated"] == {"boolq": 1, "mmlu": 2}
    assert made.manifests[-1].details["index_documents"] == 2, "what is contaminated is no original"
    assert made.manifests[-2].details["items_too_short"] == {"piqa": 1}


def test_flagged_documents_stay_with_the_verdicts_of_a_run_that_does_not_look(corpus: MakeCorpus) -> None:
    plain = corpus("plain").add([*planted(), quoting(PASSAGE, 4)])
    flagged = corpus("flagged", config=DedupConfig(decontaminate="flag"), items=ITEMS)
    rows = flagged.add([*planted(), quoting(PASSAGE, 4)])
    assert [{k: v for k, v in row.items() if k != "contaminated_by"} for row in rows] == plain
    assert [row["contaminated_by"] for row in rows] == [
        None, "mmlu_astronomy:1", None, "boolq:4", None, "mmlu_astronomy:1", "boolq:4",
    ]  # fmt: skip
    assert flagged.manifests[-1].details["contaminated"] == {"boolq": 1, "mmlu": 2}, "of what stays"


def test_a_copy_without_the_benchmarks_words_may_stay_where_its_original_went(corpus: MakeCorpus) -> None:
    question = " ".join(QUESTION.split()[:14])
    made = corpus(config=DedupConfig(decontaminate="drop"), items=ITEMS)
    body = prose(1, 300)
    first = made.add([f"{question} {body}"])
    INDEXES.clear()  # another process: the index is read back
    second = made.add([body, f"{question} {body}", body], first=1)
    assert [row["reason"] for row in [*first, *second]] == ["contaminated", None, "contaminated", "exact"]


def test_a_shard_of_contaminated_documents_alone_leaves_nothing(corpus: MakeCorpus) -> None:
    made = corpus(config=DedupConfig(decontaminate="drop"), items=ITEMS, held_out=HeldOutConfig(fraction=0.5))
    made.add([quoting(QUESTION, seed) for seed in range(5)])
    made.add([], first=5)
    assert [m.dropped for m in made.manifests[2::3]] == [{"contaminated": 5}, {}]


def test_verdicts_that_do_not_look_for_benchmarks_have_the_identity_and_columns_they_had(
    corpus: MakeCorpus,
) -> None:
    download = Node(stage="download", version=1, config={}, inputs={"file": "0" * 64})
    filtering = Node(stage="filtering", version=1, config={}, inputs={"download": download.fingerprint})
    signed = signatures_node(DedupConfig(), download, filtering)
    off = node(DedupConfig(decontaminate="off"), HeldOutConfig(), signed, None)
    assert off.config == {}
    assert off.inputs == {"signatures": signed.fingerprint}
    benchmarks = Node(stage="benchmarks", version=1, config={}, inputs={})
    looked = contamination_node(download, filtering, benchmarks)
    for asked in ("drop", "flag"):
        config = DedupConfig.model_validate({"decontaminate": asked})
        on = node(config, HeldOutConfig(), signatures_node(config, download, filtering), None, looked)
        assert (on.config, on.inputs["signatures"]) == ({"decontaminate": asked}, signed.fingerprint)
        assert on.inputs["contamination"] == looked.fingerprint
    made = corpus()
    made.add([prose(1)])
    assert read_table(made.store, made.nodes[0].path).schema.equals(VERDICTS)
