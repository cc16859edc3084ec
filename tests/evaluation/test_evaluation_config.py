from dataclasses import replace

import pytest
from pydantic import ValidationError

from tasks.evaluation.config import (
    EvaluatedModel,
    EvaluationConfig,
    benchmark_node,
    held_out_node,
)
from tasks.store.node import Node

BASE = EvaluatedModel(
    digest="base",
    address={"folder": "/models/base", "reference": "owner/base", "revision": "abc"},
    tokenizer_digest="tok",
    tokenizer_address={"node": "tokenizer/aa/aabb"},
    eos_id=2,
)


def shard(name: str) -> tuple[Node, Node]:
    download = Node(stage="download", version=1, config={}, inputs={"source": name})
    return download, Node(stage="dedup", version=1, config={}, inputs={"signatures": download.fingerprint})


def test_benchmark_identity_is_content_not_place() -> None:
    config = EvaluationConfig(benchmarks=["piqa"])
    moved = replace(BASE, address={"node": "training/00/00"}, tokenizer_address={"node": "training/00/00"})
    node = benchmark_node(config, "piqa", BASE)
    assert benchmark_node(config, "piqa", moved).fingerprint == node.fingerprint
    assert benchmark_node(config, "piqa", moved).reads["model"] == moved.address


@pytest.mark.parametrize("change", [{"digest": "other"}, {"tokenizer_digest": "other"}])
def test_benchmark_identity_changes_with_the_model(change: dict[str, str]) -> None:
    config = EvaluationConfig(benchmarks=["piqa"])
    other = benchmark_node(config, "piqa", replace(BASE, **change))
    assert other.fingerprint != benchmark_node(config, "piqa", BASE).fingerprint


def test_benchmark_identity_holds_what_shapes_its_score_and_no_other_benchmark() -> None:
    alone, among = EvaluationConfig(benchmarks=["piqa"]), EvaluationConfig(benchmarks=["boolq", "piqa"])
    node = benchmark_node(alone, "piqa", BASE)
    assert benchmark_node(among, "piqa", BASE).fingerprint == node.fingerprint
    others = [
        benchmark_node(alone, "boolq", BASE),
        benchmark_node(EvaluationConfig(benchmarks=["piqa"], limit=200), "piqa", BASE),
        benchmark_node(EvaluationConfig(benchmarks=["piqa"], num_fewshot=5), "piqa", BASE),
        benchmark_node(EvaluationConfig(benchmarks=["piqa"], num_fewshot=0), "piqa", BASE),
    ]
    assert len({node.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert set(node.config) == {"kind", "benchmark", "lm_eval"}


def test_held_out_identity_is_the_verdicts_in_order() -> None:
    one, two = shard("one"), shard("two")
    node = held_out_node(BASE, [one, two], max_documents=10, context=256)
    assert node.reads["slice"][1] == {"download": two[0].path, "dedup": two[1].path}
    others = [
        held_out_node(BASE, [two, one], max_documents=10, context=256),
        held_out_node(BASE, [one], max_documents=10, context=256),
        held_out_node(BASE, [one, two], max_documents=11, context=256),
        held_out_node(BASE, [one, two], max_documents=10, context=128),
        held_out_node(replace(BASE, eos_id=0), [one, two], max_documents=10, context=256),
    ]
    assert len({node.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_groups_are_no_identity() -> None:
    plain = EvaluationConfig(benchmarks=["piqa", "sciq"])
    grouped = EvaluationConfig(benchmarks=["piqa", "sciq"], groups={"science": ["sciq", "arc_easy"]})
    assert grouped.identity() == plain.identity()
    assert benchmark_node(grouped, "piqa", BASE) == benchmark_node(plain, "piqa", BASE)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"benchmarks": ["piqa", "piqa"]}, "piqa stands more than once"),
        ({"benchmarks": ["arc easy"]}, "'arc easy' is no lm-eval task name"),
        ({"limit": -1}, "greater than or equal to 0"),
        ({"num_fewshot": -2}, "greater than or equal to -1"),
        ({"task": []}, "Extra inputs are not permitted"),
        ({"groups": {"law": ["boolq", "lunch", "diner"]}}, "groups.law names 'lunch', 'diner', which"),
        ({"groups": {"law": []}}, "groups.law is"),
        ({"groups": {"law": ["boolq", "boolq"]}}, "each once"),
    ],
)
def test_a_bad_config_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        EvaluationConfig.model_validate(given)
