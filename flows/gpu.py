"""train_model and evaluate_model: the flows that need the machine's devices.

A training is called directly, in the flow's own thread: cancellation reaches it there, and there alone.
"""

import logging
import queue
from functools import partial

from prefect import flow
from prefect.futures import PrefectFuture

from flows.chain import DOMAIN
from flows.milestones import Model, base_model, corpus_nodes, evaluation_nodes, milestone_models
from flows.outcome import walks_of
from flows.recipe import Recipe
from flows.resolve import Resolved, resolve
from flows.server import remember_run
from tasks.evaluation.task import evaluate_benchmark, evaluate_held_out
from tasks.policy import THREADS, NodeTask
from tasks.runtime.progress import Progress, tell
from tasks.settings import Settings
from tasks.store.config import JSON
from tasks.store.errors import DaptError, ShardsFailed
from tasks.store.manifest import stands
from tasks.training.config import how_of
from tasks.training.task import make_base, train_milestone

logger = logging.getLogger(__name__)


def models_of(resolved: Resolved) -> list[Model]:
    """The base and the model of each milestone whose corpus stands."""
    domain = walks_of(resolved)[DOMAIN]
    return [base_model(resolved), *milestone_models(resolved, corpus_nodes(resolved, domain))]


def _model(resolved: Resolved, label: str) -> Model:
    return next(model for model in models_of(resolved) if model.label == label)


@flow(
    name="train-model",
    flow_run_name="train {recipe.name} {label}",
    persist_result=False,
    on_running=[remember_run],
)
def train_model(recipe: Recipe, label: str) -> JSON:
    """Make one model, unless it stands: a milestone's by training, the base from its config and the seed.

    Args:
        recipe: what to build.
        label: "base", or the milestone as people write it.

    Returns:
        `{"made": [node path]}`, empty when it stood.

    Raises:
        DaptError: it failed; `.summary` says so for who sums up the run.
    """
    resolved = resolve(recipe, Settings())
    model = _model(resolved, label)
    if model.node is None or stands(resolved.store, model.node.path):
        return {"made": []}
    run: NodeTask = make_base if label == "base" else train_milestone
    told = how_of(recipe.training, resolved.settings.ranks, resolved.settings.nodes)
    try:
        run(resolved.store.root, model.node.model_dump(mode="json"), label, told)
    except Exception as err:  # noqa: BLE001 - whatever it is, it is told with the training's name
        failure = err if isinstance(err, DaptError) else DaptError(f"training {label}: {_unexpected(err)}")
        failed = {"stage": "training", "shard": label, "error": str(failure)}
        failure.summary = {"made": [], "failed": [failed]}
        raise failure from None if failure is err else err
    return {"made": [model.node.path]}


def _unexpected(err: Exception) -> str:
    return f"{type(err).__name__}: {err}"


def _finish(
    finished: "queue.Queue[tuple[str, PrefectFuture[JSON]]]", name: str, future: PrefectFuture[JSON]
) -> None:
    finished.put((name, future))


@flow(
    name="evaluate-model",
    flow_run_name="evaluate {recipe.name} {label}",
    task_runner=THREADS,
    persist_result=False,
    on_running=[remember_run],
)
def evaluate_model(recipe: Recipe, label: str) -> JSON:
    """Measure what is missing of one model: each benchmark and each held-out slice is a unit of its own.

    Args:
        recipe: what to build.
        label: "base", or the milestone as people write it.

    Returns:
        `{"made": [node paths]}`.

    Raises:
        ShardsFailed: units failed, the others stand; `.summary` names them.
    """
    resolved = resolve(recipe, Settings())
    model, walks = _model(resolved, label), walks_of(resolved)
    units = evaluation_nodes(resolved, model, walks, corpus_nodes(resolved, walks[DOMAIN])[0])
    missing = {name: unit for name, unit in units.items() if stands(resolved.store, unit.path) is None}
    at_once = resolved.settings.ranks if resolved.settings.has_gpu else resolved.settings.workers
    finished: queue.Queue[tuple[str, PrefectFuture[JSON]]] = queue.Queue()
    waiting, made, failed = list(missing.items()), [], []
    for done in range(len(missing)):
        while waiting and done + at_once > len(missing) - len(waiting):
            name, unit = waiting.pop(0)
            run = evaluate_benchmark if name in recipe.evaluation.benchmarks else evaluate_held_out
            future = run.submit(resolved.store.root, unit.model_dump(mode="json"), f"{label} {name}")
            future.add_done_callback(partial(_finish, finished, name))
        name, future = finished.get()
        try:
            future.result()
        except Exception as err:  # noqa: BLE001 - whatever a unit fails of is told with its name; others go on
            told = str(err) if isinstance(err, DaptError) else _unexpected(err)
            failed.append({"stage": "evaluation", "shard": f"{label} {name}", "error": told})
            logger.error("evaluation of %s on %s failed: %s", label, name, told)
        else:
            made.append(units[name].path)
        tell(Progress("evaluation", label, done + 1, len(missing), "units"))
    if failed:
        told = "\n".join(f"evaluation {f['shard']}: {f['error']}" for f in failed)
        failure = ShardsFailed(f"{told}\n{len(failed)} evaluations failed; run again to redo just these")
        failure.summary = {"made": made, "failed": failed}
        raise failure
    return {"made": made}
