"""What a recipe's models took and wrote, as their manifests and tables tell it."""

import datetime
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flows.chain import Walk
from tasks.evaluation.config import SAMPLES
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, stands
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import read_table
from tasks.training.steps import STEPS

_POINTS = 200
"""Of what steps took: runs of steps told together."""
_ENERGY = ("gpu_joules", "host_joules")
_MEMORY = ("allocated_bytes", "reserved_bytes", "rss_bytes")


def training_took(store: Store, trained: Manifest, tokens_a_step: int) -> JSON:
    """The facts of a milestone that its own steps tell.

    Args:
        store: where it stands.
        trained: its manifest.
        tokens_a_step: of all ranks.
    """
    begin = int(trained.details["extends_from_step"])
    own = read_table(store, trained.path, name=STEPS).slice(begin)
    speeds = own["tokens_per_s"].to_numpy()
    seconds = tokens_a_step / speeds  # a row without a measurement makes every sum below a NaN
    whole = bool(np.isfinite(seconds).all())
    kept = max(0, int(trained.how["resumed_from_step"]) - begin)
    busy = float(seconds.sum())
    on_gpus = trained.how["device"] == "cuda"
    cores = trained.how.get("cores")
    spent = {
        "seconds": trained.seconds + (float(seconds[:kept].sum()) if whole else 0.0),
        "gpu_seconds": int(trained.how["ranks"]) * busy if whole and on_gpus else None,
        "core_seconds": cores * busy if whole and cores and not on_gpus else None,
        **{name: _sum_of_all(own[name].to_pylist()) for name in _ENERGY if name in own.column_names},
    }
    return {
        "tokens_before": begin * tokens_a_step,
        "training": spent,
        "measured": _measured(own.to_pydict(), seconds) if whole else [],
    }


def _sum_of_all(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _measured(
    columns: Mapping[str, Sequence[float | None]], seconds: NDArray[np.float64]
) -> list[list[float | None]]:
    """Runs of steps: tokens seen at the end, mean speed and share of the peak over the time, most memory."""
    tokens_a_step = np.array(columns["tokens_per_s"], float) * seconds
    rows: list[list[float | None]] = []
    for run in np.array_split(np.arange(len(seconds)), min(_POINTS, len(seconds))):
        first, last = run[0], run[-1] + 1
        speed = float(tokens_a_step[run].sum() / seconds[run].sum())
        shares = columns["mfu"][first:last]
        known = None not in shares
        mfu = float(np.average(np.array(shares, float), weights=seconds[run])) if known else None
        memory = [_most(columns[name][first:last]) for name in _MEMORY]
        rows.append([columns["tokens"][last - 1], round(speed, 1), mfu, *memory])
    return rows


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def shards_took(walk: Walk, shards: int) -> JSON:
    """The facts of a milestone that its shards tell: the first so many of the domain's."""
    used = {manifest.path: manifest for shard in walk.used[:shards] for manifest in shard.values()}
    packed = [shard["packing"] for shard in walk.used[:shards]]
    return {
        "documents": sum(manifest.documents_out for manifest in packed),
        "data_seconds": sum(manifest.seconds for manifest in used.values()),
    }


def evaluation_took(manifests: Iterable[Manifest]) -> JSON:
    """What measuring one model took, as the facts of a part of the work."""
    units = {manifest.path: manifest for manifest in manifests}.values()
    on_gpus = [unit.seconds for unit in units if unit.how.get("device") == "cuda"]
    on_cores = [unit.how.get("cpu_seconds") for unit in units if unit.how.get("device") == "cpu"]
    return {
        "seconds": sum(unit.seconds for unit in units),
        "gpu_seconds": sum(on_gpus) if on_gpus else None,
        "core_seconds": _sum_of_all(on_cores),
    }


def wall_seconds(manifests: Iterable[Manifest]) -> float:
    """In which at least one of some nodes was being made; their starts are known to the second."""
    spans = sorted(
        (datetime.datetime.fromisoformat(manifest.started).timestamp(), manifest.seconds)
        for manifest in manifests
        if manifest.started
    )
    total, until = 0.0, float("-inf")
    for start, seconds in spans:
        end = start + seconds
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def devices_of(manifests: Iterable[Manifest]) -> list[str]:
    """The accelerators that trainings had, by number and name."""
    named = (manifest.how for manifest in manifests if manifest.how.get("device_name"))
    return list(dict.fromkeys(f"{how['ranks']} x {how['device_name']}" for how in named))


def code_of(manifests: Iterable[Manifest]) -> dict[str, list[str]]:
    """By stage: version and commit of the code that made its nodes."""
    found: dict[str, dict[str, None]] = {}
    for manifest in manifests:
        told = " ".join(filter(None, (manifest.package, manifest.commit)))
        if told:
            found.setdefault(manifest.stage, {})[told] = None
    return {stage: list(told) for stage, told in found.items()}


def samples_of(store: Store, units: Mapping[str, Mapping[str, Node]]) -> list[JSON]:
    """What each model wrote after the same beginnings; none where the base wrote nothing.

    Args:
        store: where the units stand.
        units: `units_without_score` by the model's label, the base's first.
    """
    found: dict[str, JSON] = {}
    for label, of_model in units.items():
        unit = of_model.get(SAMPLES)
        if unit is None or stands(store, unit.path) is None:
            continue
        for row in read_table(store, unit.path).to_pylist():
            written = row.pop("continuation")
            found.setdefault(row["id"], {**row, "continuations": {}})["continuations"][label] = written
    return list(found.values())
