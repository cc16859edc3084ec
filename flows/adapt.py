"""adapt: corpus → train → evaluate → report, for every milestone. The map of the system on one screen."""

import logging
from typing import cast
from uuid import UUID

from prefect import flow, tags
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.alive import at_work, heeding_cancellation
from flows.budget import read_budget, with_budget, written
from flows.cluster import on_runner
from flows.corpus import build_corpus
from flows.forgetting import FORGOT, forgotten, losses_of
from flows.gpu import make_model, measure_model, models_of
from flows.outcome import reaches, save_record
from flows.plan import make_plan
from flows.recipe import Recipe
from flows.report import write_recipe_report
from flows.resolve import Resolved, held, resolve
from flows.secrets import provide_secrets
from flows.server import remember_run
from flows.shown import show_report, tags_of
from tasks.settings import Settings
from tasks.store.errors import DaptError
from tasks.store.json import JSON
from tasks.store.use import using
from tasks.training.run import clear_finished_work

logger = logging.getLogger(__name__)

NOTHING_TO_DO = "NothingToDo"
"""The state of a run that found everything standing."""


@flow(name="adapt", flow_run_name="adapt {recipe.name}", persist_result=False, on_running=[remember_run])
def adapt(recipe: Recipe, until: str = "report", budget_variable: str = "") -> JSON:
    """Build what is missing of a recipe: corpora, models, evaluations and the report.

    Args:
        recipe: what to build.
        until: the last leg: corpus, train, evaluate or report.
        budget_variable: the Prefect variable that holds the milestones; empty: the recipe's own are taken.

    Returns:
        `{"made": [node paths]}`: what this run made; all else stood. A run whose model lost more than the
        recipe's tolerance fails in the state `Forgot`, whose `Forgotten` says the same; all is made.

    Raises:
        DaptError: a leg failed; its `.summary` holds what was made before, what failed and what waits.
    """
    provide_secrets()
    recipe = _budgeted(recipe, budget_variable)
    resolved = resolve(recipe, Settings())
    smaller = _told_if_smaller(resolved)
    save_record(resolved)
    run_id = UUID(flow_run.id)
    with (
        using(resolved.store, recipe.name),
        tags(*tags_of(recipe)),
        heeding_cancellation(run_id),
        at_work(resolved.store, run_id, recipe.name),
        held(resolved),
    ):
        made: list[str] = []
        totals = make_plan(resolved, until)["totals"]
        if totals["miss"]:
            logger.info("%d nodes to make, %d stand", totals["miss"], totals["hit"])
            made = _made(resolved, until)
        lost = forgotten(losses_of(resolved)) if reaches(until, "evaluate") else None
    # Prefect takes a returned state for the run's own, and its data for the result
    if lost is not None:
        lost.summary = {"made": made, "failed": []}
        return cast(JSON, Failed(name=FORGOT, message=str(lost), data=lost))
    if totals["miss"]:
        return {"made": made}
    milestones = written(recipe.budget.milestones)
    told = f"nothing to do: all {totals['hit']} nodes of {recipe.name} at {milestones} stand{smaller}"
    return cast(JSON, Completed(name=NOTHING_TO_DO, message=told, data={"made": []}))


def _budgeted(recipe: Recipe, variable: str) -> Recipe:
    """The recipe at the milestones that the server holds for it."""
    milestones = read_budget(variable) if variable else None
    if milestones is None:
        return recipe
    logger.info("the budget is %s (Prefect variable %s)", written(milestones), variable)
    return with_budget(recipe, milestones, source=f"the Prefect variable {variable}")


def _told_if_smaller(resolved: Resolved) -> str:
    """Words on a budget that shrank since an earlier run; empty where it did not."""
    now = resolved.recipe.budget.milestones
    before = max((r.recipe["budget"]["milestones"] for r in resolved.records), key=max, default=[0])
    if before[-1] <= now[-1]:
        return ""
    told = f"; the budget was {written(before)} before and is smaller now: nothing is deleted"
    logger.warning("the budget is %s%s", written(now), told)
    return told


def _made(resolved: Resolved, until: str) -> list[str]:
    """All legs in order; what was made is told also of a run that fails."""
    made: list[str] = []
    try:
        build = on_runner(build_corpus, resolved.settings.task_runner)
        for corpus in resolved.chains:
            made += build(resolved.recipe, corpus)["made"]
        save_record(resolved)  # now that all is known: what a killed run made is still reached
        if reaches(until, "train"):
            for model in models_of(resolved):
                made += make_model(resolved, model)
                if reaches(until, "evaluate"):
                    made += measure_model(resolved, model)
            clear_finished_work(resolved.store)
        if reaches(until, "report"):
            made += write_recipe_report(resolved.recipe)["made"]
            show_report(resolved.recipe, resolved.store, made)
    except DaptError as err:
        done = err.summary or {"made": [], "failed": []}
        err.summary = {**done, "made": [*made, *done["made"]]}
        raise
    finally:
        save_record(resolved)
    return made
