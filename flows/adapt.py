"""adapt: corpus → train → evaluate → report, for every milestone. The map of the system on one screen."""

from prefect import flow

from flows.cluster import on_runner
from flows.corpus import build_corpus
from flows.gpu import evaluate_model, models_of, train_model
from flows.outcome import reaches, save_record
from flows.recipe import Recipe
from flows.report import write_recipe_report
from flows.resolve import held, resolve
from flows.server import remember_run
from tasks.settings import Settings
from tasks.store.config import JSON
from tasks.store.errors import DaptError
from tasks.training.run import clear_finished_work


@flow(name="adapt", flow_run_name="adapt {recipe.name}", persist_result=False, on_running=[remember_run])
def adapt(recipe: Recipe, until: str = "report") -> JSON:
    """Build what is missing of a recipe: corpora, models, evaluations and the report.

    Args:
        recipe: what to build.
        until: the last leg: corpus, train, evaluate or report.

    Returns:
        `{"made": [node paths]}`: what this run made; all else stood.

    Raises:
        DaptError: a leg failed; its `.summary` holds what was made before, what failed and what waits.
    """
    made: list[str] = []
    with held(resolve(recipe, Settings())) as resolved:
        try:
            build = on_runner(build_corpus, resolved.settings.task_runner)
            for corpus in resolved.chains:
                made += build(recipe, corpus)["made"]
            models = models_of(resolved)
            if reaches(until, "train"):
                for model in models:
                    made += train_model(recipe, model.label)["made"]
                    if reaches(until, "evaluate"):
                        made += evaluate_model(recipe, model.label)["made"]
                clear_finished_work(resolved.store)
            if reaches(until, "report"):
                made += write_recipe_report(recipe)["made"]
        except DaptError as err:
            done = err.summary or {"made": [], "failed": []}
            err.summary = {**done, "made": [*made, *done["made"]]}
            raise
        finally:
            save_record(resolved)
    return {"made": made}
