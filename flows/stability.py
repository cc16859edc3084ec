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
    a_step = recipe.training.global_batch_sequences * recipe.packing.sequence_length
    found: JSON = {}
    for corpus in recipe.slices if steps else []:
        metric, points = f"{BITS}.{corpus}", list[JSON]()
        base = evaluation_nodes(resolved, base_model(resolved), walks, first_corpus)[metric]
        units = all_units(resolved, model, walks, first_corpus)
        ends = {0: base, schedule.end: units[metric]}
        nodes = [ends.get(step) or units[name_at(metric, step)] for step in steps]
        for step, node in zip(steps, nodes, strict=True):
            manifest = stands(resolved.store, node.path)
            bits = manifest.details["bits_per_byte"] if manifest else None
            if bits is None:
                break
            changes = compare_units(resolved.store, {metric: nodes[0]}, {metric: node}) if points else {}
            ends_of = {end: changes[metric][end] for end in ("low", "high")} if changes else {}
            trained = step - schedule.begin
            fraction = trained / (schedule.end - schedule.begin)
            points.append(
                {"fraction": fraction, "tokens": trained * a_step, "bits_per_byte": bits, **ends_of}
            )
        if len(points) == len(steps):
            found[corpus] = _with_gap(points)
    return found


def _with_gap(points: list[JSON]) -> JSON:
    gap = stability_gap([point["bits_per_byte"] for point in points])
    dip = None if gap.dip is None else points[gap.dip]["fraction"]
    return {"points": points, "dip": dip, "depth": gap.depth, "recovery": gap.recovery}
