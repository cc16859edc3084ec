"""What changed between two models: paired, on the same items, with an interval and a corrected p.

Where both were not measured on the very same items nothing is claimed: a difference of scores on different
items would mix how hard the items are into it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.milestones import BITS
from tasks.evaluation.statistics import (
    Difference,
    group_difference,
    holm,
    paired_accuracy,
    paired_bits_per_byte,
    smallest_difference,
)
from tasks.store.json import JSON
from tasks.store.manifest import stands
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import read_table

_FEWEST_PAIRS = 2
_BOOTSTRAP_SEED = 17

Answers = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Whether two models were right on the same items, in the same order."""


def compare_units(store: Store, before: Mapping[str, Node], after: Mapping[str, Node]) -> JSON:
    """Paired differences, `after` minus `before`, by metric.

    Args:
        store: where the units stand.
        before: one model's `evaluation_nodes`.
        after: the other's.

    Returns:
        For each metric that both were measured on, on the same items: difference, low, high, stderr, p,
        p_holm (over all metrics returned), pairs, and smallest (null for a slice).
    """
    found: JSON = {}
    for name, tables in _paired(store, before, after).items():
        if _is_slice(name):
            compared, smallest = _slice_difference(*tables), None
        else:
            answers = _answers(*tables)
            compared = paired_accuracy(*answers)
            smallest = smallest_difference(compared.pairs, float((answers[0] != answers[1]).mean()))
        told = ("difference", "low", "high", "stderr", "p", "pairs")
        found[name] = {key: getattr(compared, key) for key in told} | {"smallest": smallest}
    return _corrected(found)


def compare_groups(
    store: Store, before: Mapping[str, Node], after: Mapping[str, Node], groups: Mapping[str, Sequence[str]]
) -> JSON:
    """Paired differences of the groups' unweighted means, `after` minus `before`, by the group's name.

    Args:
        store: where the units stand.
        before: one model's `evaluation_nodes`.
        after: the other's.
        groups: benchmarks by the group's name; those that were not evaluated do not count.

    Returns:
        base, score, difference, low, high, p, p_holm (over the groups), relative, relative_low, relative_high
        and benchmarks; a group is left out where none of its benchmarks was evaluated, or one is not paired.
    """
    found: JSON = {}
    for group, members in groups.items():
        evaluated = [name for name in members if name in before and name in after]
        tables = _paired(store, *({name: units[name] for name in evaluated} for units in (before, after)))
        if not tables or len(tables) < len(evaluated):
            continue
        answers = [_answers(*pair) for pair in tables.values()]
        change = asdict(group_difference(answers, generator=np.random.default_rng(_BOOTSTRAP_SEED)))
        del change["stderr"]
        ends = {"base": change.pop("first"), "score": change.pop("second")}
        found[group] = ends | change | {"benchmarks": evaluated}
    return _corrected(found)


def _corrected(found: JSON) -> JSON:
    adjusted = holm([change["p"] for change in found.values()])
    for change, p in zip(found.values(), adjusted, strict=True):
        change["p_holm"] = p
    return found


def _is_slice(name: str) -> bool:
    return name.startswith(f"{BITS}.")


def _paired(
    store: Store, before: Mapping[str, Node], after: Mapping[str, Node]
) -> dict[str, tuple[pa.Table, pa.Table]]:
    """What two models' units logged, by metric, the same item in the same row; without what has no pair."""
    found = {}
    for name in before:
        if name not in after or not all(stands(store, units[name].path) for units in (before, after)):
            continue
        keys = ["id"] if _is_slice(name) else ["benchmark", "doc_id", "doc_hash"]
        order = [(key, "ascending") for key in keys]
        first, second = (read_table(store, units[name].path).sort_by(order) for units in (before, after))
        if len(first) >= _FEWEST_PAIRS and first.select(keys).equals(second.select(keys)):
            found[name] = (first, second)
    return found


def _slice_difference(before: pa.Table, after: pa.Table) -> Difference:
    return paired_bits_per_byte(
        before["nats"].to_numpy(),
        after["nats"].to_numpy(),
        before["bytes"].to_numpy(),
        generator=np.random.default_rng(_BOOTSTRAP_SEED),
    )


def _answers(before: pa.Table, after: pa.Table) -> Answers:
    """By the headline metric: acc_norm where the benchmark has it, else acc."""
    normed = not (before["correct_norm"].null_count or after["correct_norm"].null_count)
    column = "correct_norm" if normed else "correct"
    first, second = (table[column].to_numpy().astype(np.bool_) for table in (before, after))
    return first, second
