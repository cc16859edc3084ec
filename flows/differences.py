"""What a milestone changed against the base: paired, on the same items, with an interval."""

import numpy as np
import pyarrow as pa

from flows.milestones import BITS, scored
from flows.resolve import Resolved
from tasks.evaluation.statistics import Difference, paired_accuracy, paired_bits_per_byte
from tasks.store.json import JSON
from tasks.store.manifest import stands
from tasks.store.node import Node
from tasks.store.shard import read_table

_FEWEST_PAIRS = 2
_BOOTSTRAP_SEED = 17


def deltas(resolved: Resolved, base_units: dict[str, Node], units: dict[str, Node]) -> JSON:
    """Paired differences against the base, by metric, where both sides were measured."""
    found: JSON = {}
    for name, unit in scored(units).items():
        tables = [_items(resolved, node) for node in (base_units[name], unit)]
        compared = _compared(name, *tables)
        if compared is not None:
            found[name] = {"difference": compared.difference, "low": compared.low, "high": compared.high}
    return found


def _items(resolved: Resolved, unit: Node) -> pa.Table | None:
    """What a unit logged, an item a row."""
    return read_table(resolved.store, unit.path) if stands(resolved.store, unit.path) else None


def _compared(name: str, base: pa.Table | None, adapted: pa.Table | None) -> Difference | None:
    """A milestone against the base on the same items, in the same order; None where that cannot be said."""
    if base is None or adapted is None or len(base) < _FEWEST_PAIRS:
        return None
    key = "id" if name.startswith(f"{BITS}.") else "doc_hash"
    if not base[key].equals(adapted[key]):
        return None
    if key == "id":
        sizes = base["bytes"].to_numpy()
        generator = np.random.default_rng(_BOOTSTRAP_SEED)
        return paired_bits_per_byte(
            base["nats"].to_numpy(), adapted["nats"].to_numpy(), sizes, generator=generator
        )
    column = "correct" if base["correct_norm"].null_count else "correct_norm"
    first, second = (table[column].to_numpy(zero_copy_only=False) for table in (base, adapted))
    return paired_accuracy(first.astype(bool), second.astype(bool))
