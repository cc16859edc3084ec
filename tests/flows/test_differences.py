"""Any two models' units compared: the same items pair whatever their order, others claim nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows.differences import compare_groups, compare_units, most_frequent
from tasks.evaluation.statistics import holm, mcnemar
from tasks.evaluation.tables import BENCHMARK_ITEMS, HELD_OUT_ITEMS
from tasks.report.scored import Delta, GroupChange
from tasks.store.json import JSON
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node

ITEMS = 400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def unit(store: Store, name: str, model: str, rows: list[JSON]) -> Node:
    """An evaluation of invented items that stands."""
    schema = HELD_OUT_ITEMS if name.startswith("bits_per_byte.") else BENCHMARK_ITEMS

    def write(writer: NodeWriter) -> None:
        with writer.parquet(schema) as out:
            out.write_table(pa.Table.from_pylist(rows, schema))

    node = Node(stage="evaluation", version=1, config={"benchmark": name}, inputs={"model": model})
    build_node(store, node, write, room="tasks.evaluation", shard=name)
    return node


def answered(model: int, *, share: float = 0.5, norm: bool = False, items: int = ITEMS) -> list[JSON]:
    """Items of two subjects of which a share is right; with `norm` it is acc_norm that says so."""
    right = np.random.default_rng(model).random(items) < share
    return [
        {
            "benchmark": f"subject {number % 2}",
            "doc_id": number // 2,
            "doc_hash": f"hash {number}",
            "correct": False if norm else bool(is_right),
            "correct_norm": bool(is_right) if norm else None,
            "chosen": 0,
            "target": number % 3,
            "log_likelihoods": [-1.0, -2.0],
        }
        for number, is_right in enumerate(right)
    ]


def measured(model: int, *, better: float = 0.0) -> list[JSON]:
    nats = np.random.default_rng(model).normal(100 - better, 3, 60)
    return [
        {"id": f"document {number}", "bytes": 50, "nats": value, "tokens": 9}
        for number, value in enumerate(nats.tolist())
    ]


def suite(store: Store, model: int, **changed: list[JSON]) -> dict[str, Node]:
    rows = {"piqa": answered(model), "arc_easy": answered(model, norm=True)}
    rows |= {"bits_per_byte.domain": measured(model)} | changed
    return {name: unit(store, name, str(model), of_unit) for name, of_unit in rows.items()}


def test_every_metric_that_both_have_is_compared_and_corrected_together(store: Store) -> None:
    after = suite(store, 2, **{"bits_per_byte.domain": measured(2, better=5)})
    found = compare_units(store, suite(store, 1), after)
    deltas = {name: Delta.model_validate(delta) for name, delta in found.items()}
    assert set(deltas) == {"piqa", "arc_easy", "bits_per_byte.domain"}
    adjusted = holm([delta.p for delta in deltas.values()])
    assert [delta.p_holm for delta in deltas.values()] == adjusted
    assert deltas["bits_per_byte.domain"].high < 0
    assert deltas["bits_per_byte.domain"].smallest is None
    one, other = (np.random.default_rng(model).random(ITEMS) < 0.5 for model in (1, 2))
    for name in ("piqa", "arc_easy"):
        assert deltas[name].p == mcnemar(int((other & ~one).sum()), int((one & ~other).sum()))
        assert deltas[name].difference == pytest.approx(other.mean() - one.mean())
        assert deltas[name].pairs == ITEMS
        assert 0.05 < (deltas[name].smallest or 0) < 0.15, "half of 400 items differ: 2.8 sqrt(.5 / 400)"


def test_the_order_of_the_items_does_not_matter(store: Store) -> None:
    straight, turned = (
        suite(store, model, piqa=rows) for model, rows in ((2, answered(2)), (3, answered(2)[::-1]))
    )
    before = suite(store, 1)
    assert (
        compare_units(store, before, straight)["piqa"]["p"]
        == compare_units(store, before, turned)["piqa"]["p"]
    )


def other_documents(rows: list[JSON]) -> None:
    rows[5]["doc_hash"] = "another"


def other_subject(rows: list[JSON]) -> None:
    rows[5]["benchmark"] = "a third"


def fewer(rows: list[JSON]) -> None:
    del rows[-1]


@pytest.mark.parametrize("change", [other_documents, other_subject, fewer])
def test_other_items_claim_nothing(store: Store, change: Callable[[list[JSON]], None]) -> None:
    rows = answered(2)
    change(rows)
    found = compare_units(store, suite(store, 1), suite(store, 2, piqa=rows))
    assert set(found) == {"arc_easy", "bits_per_byte.domain"}


def test_other_documents_of_a_slice_claim_nothing(store: Store) -> None:
    rows = measured(2)
    rows[0]["id"] = "another"
    found = compare_units(store, suite(store, 1), suite(store, 2, **{"bits_per_byte.domain": rows}))
    assert set(found) == {"piqa", "arc_easy"}


def test_what_one_side_lacks_claims_nothing(store: Store) -> None:
    before, after = suite(store, 1), suite(store, 2)
    del before["piqa"]
    after["arc_easy"] = Node(stage="evaluation", version=1, config={}, inputs={"model": "never made"})
    assert set(compare_units(store, before, after)) == {"bits_per_byte.domain"}
    assert compare_units(store, {}, after) == {}


def test_groups_are_means_of_the_benchmarks_that_were_evaluated(store: Store) -> None:
    groups = {"mixed": ["piqa", "arc_easy", "boolq"], "general": ["piqa"], "none": ["boolq"]}
    better = suite(store, 2, piqa=answered(2, share=0.8))
    found = compare_groups(store, suite(store, 1), better, groups)
    changes = {name: GroupChange.model_validate(change) for name, change in found.items()}
    assert {name: change.benchmarks for name, change in changes.items()} == {
        "mixed": ["piqa", "arc_easy"],
        "general": ["piqa"],
    }
    deltas = compare_units(store, suite(store, 1), better)
    mean = (deltas["piqa"]["difference"] + deltas["arc_easy"]["difference"]) / 2
    assert changes["mixed"].difference == pytest.approx(mean)
    assert changes["mixed"].low < mean < changes["mixed"].high
    assert [change.p_holm for change in changes.values()] == holm([change.p for change in changes.values()])


def test_a_group_with_a_benchmark_on_other_items_is_not_told(store: Store) -> None:
    rows = answered(2)
    fewer(rows)
    groups = {"mixed": ["piqa", "arc_easy"], "alone": ["arc_easy"]}
    assert set(compare_groups(store, suite(store, 1), suite(store, 2, piqa=rows), groups)) == {"alone"}


@pytest.mark.parametrize(
    ("answers", "share"), [([0, 1, 1, None], 0.5), ([None, None], None), ([2, 2, 2], 1.0), ([], None)]
)
def test_the_share_of_the_most_frequent_answer(answers: list[Any], share: float | None) -> None:
    assert most_frequent(pa.chunked_array([pa.array(answers, pa.int32())])) == share
