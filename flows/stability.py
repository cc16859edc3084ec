"""How the slices fared during a training (`training.eval_at`), from what stands."""

from flows.chain import Walk
from flows.differences import compare_units
from flows.milestones import BITS, Model, all_units, base_model, evaluation_nodes, name_at, schedule_of
from flows.resolve import Resolved
from tasks.evaluation.stability import stability_gap
from tasks.store.json import JSON
from tasks.store.manifest import stands
from tasks.store.node import Node


def stability(resolved: Resolved, model: Model, walks: dict[str, Walk], first_corpus: Node) -> JSON:
    """`Stability` of each slice that was measured all the way; empty where the recipe asks for the end alone.

    Args:
        resolved: the recipe on its store.
        model: a milestone's.
        walks: how far its corpora stand: whole.
        first_corpus: of the smallest milestone.
    """
    recipe, schedule = resolved.recipe, schedule_of(resolved, model.label)
    steps = schedule.measured(recipe.training.eval_at)
    if not steps:
        return {}
    base = evaluation_nodes(resolved, base_model(resolved), walks, first_corpus)
    units = all_units(resolved, model, walks, first_corpus)
    trained = schedule.end - schedule.begin
    a_step = recipe.training.global_batch_sequences * recipe.packing.sequence_length
    found: JSON = {}
    for corpus in recipe.slices:
        metric = f"{BITS}.{corpus}"
        ends = {0: base[metric], schedule.end: units[metric]}
        nodes = [ends.get(step) or units[name_at(metric, step)] for step in steps]
        manifests = [stands(resolved.store, node.path) for node in nodes]
        measured = [manifest.details[BITS] for manifest in manifests if manifest]
        if len(measured) < len(steps) or None in measured:  # an empty slice
            continue
        points: list[JSON] = []
        for step, node, bits in zip(steps, nodes, measured, strict=True):
            done = step - schedule.begin
            point = {"fraction": done / trained, "tokens": done * a_step, "bits_per_byte": bits}
            change = compare_units(resolved.store, {metric: nodes[0]}, {metric: node}).get(metric)
            if change and points:
                point |= {"low": change["low"], "high": change["high"]}
            points.append(point)
        found[corpus] = _with_gap(points)
    return found


def _with_gap(points: list[JSON]) -> JSON:
    gap = stability_gap([point["bits_per_byte"] for point in points])
    dip = None if gap.dip is None else points[gap.dip]["fraction"]
    return {"points": points, "dip": dip, "depth": gap.depth, "recovery": gap.recovery}
