"""train_model and evaluate_model: the flows that need devices, here or on the GPU pool.

With a pool (`DAPT_POOL`) each training and each evaluation unit is a run of its own there; without one the
same flows run in place. They are given the nodes to make, so a worker needs the store and not the sources.

A training is called directly, in the flow's own thread: cancellation reaches it there, and there alone.
"""

import logging
import queue
from functools import partial
from uuid import UUID

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run

from flows.alive import heeding_cancellation
from flows.chain import DOMAIN
from flows.milestones import Model, all_units, base_model, corpus_nodes, milestone_models
from flows.outcome import walks_of
from flows.pool import Order, run_on_pool
from flows.recipe import Recipe
from flows.resolve import Resolved, resolve
from flows.secrets import provide_secrets
from flows.server import remember_run
from flows.shown import evaluation_shown, show_scores, show_trained, training_shown
from tasks.evaluation.task import evaluate_benchmark, evaluate_held_out, write_samples
from tasks.policy import THREADS, NodeTask
from tasks.runtime.progress import Progress, tell
from tasks.settings import Settings
from tasks.store.errors import DaptError, ShardsFailed
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, stands
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.use import using
from tasks.training.config import how_of, references_of
from tasks.training.task import make_base, score_reference, train_milestone

logger = logging.getLogger(__name__)

_BY_KIND = {"benchmark": evaluate_benchmark, "held_out": evaluate_held_out, "samples": write_samples}


def models_of(resolved: Resolved) -> list[Model]:
    """The base and the model of each milestone whose corpus stands."""
    walks = walks_of(resolved)
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    return [base_model(resolved), *milestone_models(resolved, walks, corpora)]


def make_model(resolved: Resolved, model: Model) -> list[str]:
    """Make a model unless it stands, on the GPU pool where there is one.

    Returns:
        The paths of what was made.

    Raises:
        DaptError: it failed; `.summary` says so for who sums up the run.
    """
    if model.node is None or stands(resolved.store, model.node.path):
        return []
    recipe, node = resolved.recipe, model.node.to_json()
    if resolved.settings.pool is None:
        made: list[str] = train_model(recipe, model.label, node)["made"]
        return made
    missing = [made.path for made in references_of(model.node) if stands(resolved.store, made.path) is None]
    parameters = {"recipe": recipe.model_dump(mode="json"), "label": model.label, "node": node}
    name = f"train {recipe.name} {model.label}"
    order = Order(f"train-model/{recipe.name}", name, parameters, model.node)
    for _, failure in run_on_pool(resolved.settings.pool, resolved.store, [order]):
        if failure is not None:
            raise _training_failed(model.label, failure)
    return [*missing, model.node.path]


def measure_model(resolved: Resolved, model: Model) -> list[str]:
    """Measure what is missing of a model, on the GPU pool where there is one: there a run a unit.

    Returns:
        The paths of what was made.

    Raises:
        ShardsFailed: units failed, the others stand; `.summary` names them.
    """
    missing = missing_units(resolved, model)
    if not missing:
        return []
    try:
        if resolved.settings.pool is None:
            nodes = {name: unit.to_json() for name, unit in missing.items()}
            made: list[str] = evaluate_model(resolved.recipe, model.label, nodes)["made"]
            return made
        return _measured_on_pool(resolved, resolved.settings.pool, model.label, missing)
    finally:
        show_scores(resolved, walks_of(resolved))


def _measured_on_pool(resolved: Resolved, pool: str, label: str, missing: dict[str, Node]) -> list[str]:
    recipe = resolved.recipe
    orders = [
        Order(
            f"evaluate-model/{recipe.name}",
            f"evaluate {recipe.name} {label} {name}",
            {
                "recipe": recipe.model_dump(mode="json"),
                "label": label,
                "units": {name: unit.to_json()},
            },
            unit,
        )
        for name, unit in missing.items()
    ]
    names = {unit.path: name for name, unit in missing.items()}
    units = _Units(label, len(missing))
    with evaluation_shown(recipe, label, list(missing)):
        for order, failure in run_on_pool(pool, resolved.store, orders):
            units.ended(names[order.node.path], order.node, failure)
    return units.outcome()


def missing_units(resolved: Resolved, model: Model) -> dict[str, Node]:
    """What is to be measured of a model and does not stand, by name."""
    walks = walks_of(resolved)
    units = all_units(resolved, model, walks, corpus_nodes(resolved, walks[DOMAIN])[0])
    return {name: unit for name, unit in units.items() if stands(resolved.store, unit.path) is None}


@flow(
    name="train-model",
    flow_run_name="train {recipe.name} {label}",
    persist_result=False,
    on_running=[remember_run],
)
def train_model(recipe: Recipe, label: str, node: JSON | None = None) -> JSON:
    """Make one model, unless it stands: a milestone's by training, the base from its config and the seed.

    Args:
        recipe: what to build.
        label: "base", or the milestone as people write it.
        node: what is to be made; left out, it is found by the label.

    Returns:
        `{"made": [node path]}`, empty when it stood.

    Raises:
        DaptError: it failed; `.summary` says so for who sums up the run.
    """
    provide_secrets()
    settings = Settings()
    store = Store(settings.store)
    wanted = Node.from_json(node) if node else _model(resolve(recipe, settings), label).node
    if wanted is None or stands(store, wanted.path):
        return {"made": []}
    made: list[str] = []
    run: NodeTask = make_base if label == "base" else train_milestone
    told = how_of(recipe.training, settings.ranks, settings.nodes)
    try:
        with (
            using(store, recipe.name),
            heeding_cancellation(UUID(flow_run.id)),
            training_shown(recipe, label) as shown,
        ):
            for number, scored in enumerate(references_of(wanted)):
                if stands(store, scored.path) is None:
                    score_reference(store.root, scored.to_json(), f"{number:05d}")
                    made.append(scored.path)
            manifest = run(store.root, wanted.to_json(), label, told)
            if label != "base":
                show_trained(shown, label, Manifest.from_json(manifest))
    except Exception as err:  # noqa: BLE001 - whatever it is, it is told with the training's name
        failure = err if isinstance(err, DaptError) else DaptError(f"training {label}: {_unexpected(err)}")
        raise _training_failed(label, failure) from None if failure is err else err
    return {"made": [*made, wanted.path]}


def _model(resolved: Resolved, label: str) -> Model:
    models = {model.label: model for model in models_of(resolved)}
    if label not in models:
        raise DaptError(f"there is no model {label!r} whose corpus stands; there are {', '.join(models)}")
    return models[label]


def _training_failed(label: str, failure: DaptError) -> DaptError:
    failed = {"stage": "training", "shard": label, "error": str(failure)}
    failure.summary = {"made": [], "failed": [failed]}
    return failure


def _unexpected(err: Exception) -> str:
    return f"{type(err).__name__}: {err}"


def _evaluation_name() -> str:
    """A run that measures one thing is called by it."""
    given = flow_run.parameters
    units = list(given.get("units") or {})
    return " ".join(["evaluate", given["recipe"].name, given["label"], *(units if len(units) == 1 else [])])


@flow(
    name="evaluate-model",
    flow_run_name=_evaluation_name,
    task_runner=THREADS,
    persist_result=False,
    on_running=[remember_run],
)
def evaluate_model(recipe: Recipe, label: str, units: dict[str, JSON] | None = None) -> JSON:
    """Measure one model: each benchmark and each held-out slice is a unit of its own, its samples another.

    Args:
        recipe: what to build.
        label: "base", or the milestone as people write it.
        units: the nodes to make, by what they measure; left out, all that are missing.

    Returns:
        `{"made": [node paths]}`.

    Raises:
        ShardsFailed: units failed, the others stand; `.summary` names them.
    """
    provide_secrets()
    settings = Settings()
    store = Store(settings.store)
    if units is None:
        resolved = resolve(recipe, settings)
        missing = missing_units(resolved, _model(resolved, label))
    else:
        missing = {name: Node.from_json(unit) for name, unit in units.items()}
    at_once = settings.ranks if settings.has_gpu else settings.workers
    with (
        using(store, recipe.name),
        heeding_cancellation(UUID(flow_run.id)),
        evaluation_shown(recipe, label, list(missing)),
    ):
        return {"made": _measured(store, label, missing, at_once)}


def _measured(store: Store, label: str, missing: dict[str, Node], at_once: int) -> list[str]:
    """Measure units as tasks of this run, a few at a time."""
    finished: queue.Queue[tuple[str, PrefectFuture[JSON]]] = queue.Queue()
    waiting, told = list(missing.items()), _Units(label, len(missing))
    for done in range(len(missing)):
        while waiting and done + at_once > len(missing) - len(waiting):
            name, unit = waiting.pop(0)
            future = _BY_KIND[unit.config["kind"]].submit(store.root, unit.to_json(), f"{label} {name}")
            future.add_done_callback(partial(_finish, finished, name))
        name, future = finished.get()
        try:
            future.result()
        except DaptError as err:
            told.ended(name, missing[name], err)
        except Exception as err:  # noqa: BLE001 - whatever a unit fails of is told with its name; others go on
            told.ended(name, missing[name], DaptError(_unexpected(err)))
        else:
            told.ended(name, missing[name], None)
    return told.outcome()


def _finish(
    finished: "queue.Queue[tuple[str, PrefectFuture[JSON]]]", name: str, future: PrefectFuture[JSON]
) -> None:
    finished.put((name, future))


class _Units:
    """What became of the units of one model."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total = label, total
        self._made: list[str] = []
        self._failed: list[JSON] = []

    def ended(self, name: str, unit: Node, failure: DaptError | None) -> None:
        """Note how a unit ended, and tell how far all are."""
        if failure is None:
            self._made.append(unit.path)
        else:
            told = {"stage": "evaluation", "shard": f"{self._label} {name}", "error": str(failure)}
            self._failed.append(told)
            logger.error("evaluation of %s on %s failed: %s", self._label, name, failure)
        done = len(self._made) + len(self._failed)
        tell(Progress("evaluation", self._label, done, self._total, "units"))

    def outcome(self) -> list[str]:
        """The paths of what was made.

        Raises:
            ShardsFailed: units failed.
        """
        if not self._failed:
            return self._made
        told = "\n".join(f"evaluation {f['shard']}: {f['error']}" for f in self._failed)
        failure = ShardsFailed(
            f"{told}\n{len(self._failed)} evaluations failed; run again to redo just these"
        )
        failure.summary = {"made": self._made, "failed": self._failed}
        raise failure
