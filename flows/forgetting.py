"""The gate: what each milestone lost against the base, where the recipe has a tolerance, from what stands.

A benchmark's loss is the fall of its accuracy. A slice's is the change of its bits per byte as a share of the
base's on the same documents, and its interval that of the paired change in the same unit.
"""

from collections.abc import Mapping

from flows.chain import DOMAIN, Walk
from flows.differences import compare_units
from flows.milestones import BITS, base_model, corpus_nodes, evaluation_nodes, milestone_models
from flows.outcome import walks_of
from flows.recipe import SLICES, Recipe
from flows.resolve import Resolved
from tasks.report.forgetting import beyond, sentence
from tasks.report.scored import Loss
from tasks.store.errors import Forgotten
from tasks.store.manifest import read_manifest
from tasks.store.node import Node

FORGOT = "Forgot"
"""The state of a run whose model lost more than its recipe allows."""


def losses_of(resolved: Resolved, *, walks: dict[str, Walk] | None = None) -> list[Loss]:
    """What every milestone lost that was evaluated, on all that has a tolerance and was measured.

    Args:
        resolved: the recipe on its store.
        walks: how far its corpora stand, from who has just looked; None: looked at here.
    """
    if not resolved.recipe.evaluation.tolerance:
        return []
    walks = walks or walks_of(resolved)
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    if len(corpora) < len(resolved.recipe.budget.milestones):
        return []
    before = evaluation_nodes(resolved, base_model(resolved), walks, corpora[0])
    found: list[Loss] = []
    for model in milestone_models(resolved, walks, corpora):
        found += _losses(resolved, model.label, before, evaluation_nodes(resolved, model, walks, corpora[0]))
    return found


def _losses(
    resolved: Resolved, milestone: str, before: Mapping[str, Node], after: Mapping[str, Node]
) -> list[Loss]:
    tolerance = resolved.recipe.evaluation.tolerance
    metrics = {f"{BITS}.{name}" if name in SLICES else name: name for name in tolerance}
    compared = compare_units(
        resolved.store,
        {metric: unit for metric, unit in before.items() if metric in metrics},
        {metric: unit for metric, unit in after.items() if metric in metrics},
    )
    found: list[Loss] = []
    for metric, change in compared.items():
        name = metrics[metric]
        base, score = (_score(resolved, units[metric]) for units in (before, after))
        ends = [change[end] for end in ("difference", "low", "high")]
        loss, low, high = ends if name in SLICES else (-ends[0], -ends[2], -ends[1])
        unit = base if name in SLICES else 1.0
        found.append(
            Loss(
                milestone=milestone,
                metric=name,
                base=base,
                score=score,
                loss=loss / unit,
                low=low / unit,
                high=high / unit,
                tolerance=tolerance[name],
            )
        )
    return found


def _score(resolved: Resolved, unit: Node) -> float:
    manifest = read_manifest(resolved.store, unit.path)
    assert manifest is not None, "it was compared just now"
    return float(manifest.details["score" if "score" in manifest.details else BITS])


def forgotten(losses: list[Loss]) -> Forgotten | None:
    """What is raised of losses beyond the tolerance; None where there are none."""
    lines = [f"forgot: {sentence(loss)}" for loss in beyond(losses)]
    if not lines:
        return None
    kept = "the model is kept; lower training.learning_rate, or raise general.replay_fraction"
    return Forgotten("\n".join([*lines, kept]))


def doubts(recipe: Recipe, losses: list[Loss]) -> list[str]:
    """What a tolerance could not decide: too few documents or items to say.

    Args:
        recipe: that was run to its evaluation.
        losses: `losses_of` it.
    """
    unsure = [loss for loss in losses if not loss.beyond and loss.loss > loss.tolerance]
    told = [f"let pass, since its interval reaches what is allowed: {sentence(loss)}" for loss in unsure]
    judged = {loss.metric for loss in losses}
    return told + [
        f"not judged: evaluation.tolerance.{name}; base and milestones need two documents or items in common"
        for name in recipe.evaluation.tolerance
        if name not in judged
    ]
