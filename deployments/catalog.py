"""What stands on a Prefect server for a recipe, as data: pools, queues, the budget, deployments, automations.

Bodies are those of Prefect's REST API. `deploy.py` compares them with the server and applies the difference.
Entrypoints are modules of the installed package: workers have it installed and pull no code.

Three automations: a changed budget starts the growth; a run whose process fell silent is marked Crashed; a
crashed run of a recipe is scheduled again, at most `MAX_REVIVALS` times. (A server that keeps the order of
events in its memory, as those without Redis do, lets one wait for a quarter of an hour where it was restarted
itself within five minutes of the run's last change of state.)
"""

from dataclasses import dataclass
from typing import Any, Literal

from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.adapt import NOTHING_TO_DO, adapt
from flows.budget import variable_of, written
from flows.forgetting import FORGOT
from flows.gpu import evaluate_model, train_model
from flows.pool import SETTLED
from flows.recipe import Recipe
from tasks.store.json import JSON

CPU = "cpu"
"""The pool whose workers prepare data and lead the runs."""
MAX_REVIVALS = 3
_HEARTBEAT_S = 30
_SILENT_S = 75
"""Without a heartbeat a run is taken for dead: two of them lost, and some."""
_REVIVED = "revive-when-crashed"
"""A tag of the runs that are scheduled again when they crash."""

Kind = Literal["work pool", "work queue", "variable", "deployment", "automation"]


@dataclass(frozen=True, slots=True)
class Item:
    """A thing that is to stand on the server."""

    kind: Kind
    name: str
    body: JSON
    """What is to hold of it, as the REST API takes it."""
    first: JSON
    """What it is created with besides, and users may change afterwards."""


def catalog(recipe: Recipe, *, store: str, pool: str, num_gpus: int, cron: str) -> list[Item]:
    """All that a recipe needs on a server, in the order in which it can be made.

    Args:
        recipe: what is run.
        store: the address of its store, for the workers: an absolute path or a URL.
        pool: the work pool of trainings and evaluations.
        num_gpus: how many runs a new GPU pool takes at once.
        cron: when a run looks for a new budget, in UTC; empty: only when it is told.
    """
    milestones = written(recipe.budget.milestones)
    return [
        _pool(CPU, "data shards and the runs that lead", limit=None),
        *([] if pool == CPU else [_pool(pool, "trainings and evaluations", limit=num_gpus)]),
        _queue(pool, "training", priority=1),
        _queue(pool, "evaluation", priority=2),
        Item(
            "variable", variable_of(recipe.name), {"value": milestones}, {"tags": ["dapt", _tag_of(recipe)]}
        ),
        _adapt(recipe, store, pool, cron),
        _on_pool(train_model, recipe, store, pool, queue="training"),
        _on_pool(evaluate_model, recipe, store, pool, queue="evaluation"),
        _growth(recipe),
        _silent_runs(),
        _crashed_runs(),
    ]


def _tag_of(recipe: Recipe) -> str:
    return f"recipe:{recipe.name}"


def _pool(name: str, what: str, *, limit: int | None) -> Item:
    """A pool of processes; its first worker fills in the template of its jobs."""
    return Item(
        "work pool",
        name,
        {},
        {"type": "process", "concurrency_limit": limit, "description": f"daptflow: {what}"},
    )


def _queue(pool: str, name: str, *, priority: int) -> Item:
    return Item("work queue", f"{pool}/{name}", {}, {"name": name, "priority": priority})


def _adapt(recipe: Recipe, store: str, pool: str, cron: str) -> Item:
    body = _deployment(adapt, recipe, {"DAPT_STORE": store, "DAPT_POOL": pool})
    body["parameters"] |= {"until": "report", "budget_variable": variable_of(recipe.name)}
    body["tags"] += [_REVIVED]
    body |= {
        "work_pool_name": CPU,
        "work_queue_name": "default",
        "schedules": [{"schedule": {"cron": cron, "timezone": "UTC"}, "active": True}] if cron else [],
        # of two changes in a row the second waits, and finds the work of the first standing
        "concurrency_limit": 1,
        "concurrency_options": {"collision_strategy": "ENQUEUE"},
    }
    return Item("deployment", f"adapt/{recipe.name}", body, {})


def _on_pool(flow: Flow[..., Any], recipe: Recipe, store: str, pool: str, *, queue: str) -> Item:
    body = _deployment(flow, recipe, {"DAPT_STORE": store})
    body["tags"] += [f"stage:{queue}"]
    body |= {"work_pool_name": pool, "work_queue_name": queue}
    return Item("deployment", f"{flow.name}/{recipe.name}", body, {})


def _deployment(flow: Flow[..., Any], recipe: Recipe, settings: dict[str, str]) -> JSON:
    environment = {
        **settings,
        "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(_HEARTBEAT_S),
    }
    return {
        "description": flow.description,
        "entrypoint": f"{flow.fn.__module__}.{flow.fn.__name__}",
        "pull_steps": [],
        "parameters": {"recipe": recipe.model_dump(mode="json")},
        "parameter_openapi_schema": parameter_schema(flow).model_dump(mode="json", exclude_unset=True),
        "enforce_parameter_schema": True,
        "tags": ["dapt", _tag_of(recipe)],
        # with streamed output a flow dies at its next line when its worker has died
        "job_variables": {"env": environment, "stream_output": False},
    }


def _growth(recipe: Recipe) -> Item:
    variable = variable_of(recipe.name)
    trigger = {
        "type": "event",
        "posture": "Reactive",
        "expect": ["prefect.variable.created", "prefect.variable.updated"],
        "match": {"prefect.resource.id": "prefect.variable.*", "prefect.resource.name": variable},
        "threshold": 1,
    }
    action = {"type": "run-deployment", "source": "selected", "deployment": f"adapt/{recipe.name}"}
    description = f"A change of {variable} starts adapt/{recipe.name}."
    return _automation(f"dapt: the budget of {recipe.name} changed", description, trigger, action)


def _silent_runs() -> Item:
    ends = ("Completed", "Failed", "Cancelled", "Crashed", NOTHING_TO_DO, FORGOT)
    trigger = {
        "type": "event",
        "posture": "Proactive",
        "after": ["prefect.flow-run.heartbeat"],
        "expect": ["prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in ends)],
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "match_related": _tagged("dapt"),
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": _SILENT_S,
    }
    message = f"no sign of life for {_SILENT_S} s: its process is taken for dead"
    action = {"type": "change-flow-run-state", "state": "CRASHED", "message": message}
    return _automation("dapt: runs that fell silent", "Marks them as crashed.", trigger, action)


def _crashed_runs() -> Item:
    trigger = {
        "type": "event",
        "posture": "Proactive",  # nothing more was heard of it for a while
        "after": ["prefect.flow-run.Crashed"],
        "expect": [f"prefect.flow-run.{state}" for state in ("Crashed", "Scheduled", "Pending", "Running")],
        "within": SETTLED.total_seconds(),
        "match": {
            "prefect.resource.id": "prefect.flow-run.*",
            "prefect.run-count": [str(count + 1) for count in range(MAX_REVIVALS)],
        },
        "match_related": _tagged(_REVIVED),
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
    }
    action = {
        "type": "change-flow-run-state",
        "state": "SCHEDULED",
        "name": "AwaitingRetry",
        "message": "it crashed; what stands is kept, it goes on from there",
    }
    description = f"Schedules them again, {MAX_REVIVALS} times at most."
    return _automation("dapt: runs that crashed", description, trigger, action)


def _tagged(tag: str) -> JSON:
    return {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}


def _automation(name: str, description: str, trigger: JSON, action: JSON) -> Item:
    body = {"description": description, "enabled": True, "trigger": trigger, "actions": [action]}
    return Item("automation", name, body, {"tags": ["dapt"]})
