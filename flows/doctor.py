"""`dapt doctor`: what will not work, said before it doesn't; like a plan it changes no data.

In: the settings and, if named, a recipe. Out: checks, each with what was found, what was expected, what to
do. Without a recipe the machine, the store, the Hub and Prefect are looked at; with one also what it needs:
its base model, tokenizer, data and benchmarks on the Hub, disk and memory by its plan, its deployments. All
is asked side by side, each network request for at most 5 s and all together for `LIMIT_S`.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial

from rich.console import Console
from rich.text import Text

from flows import doctor_hub, doctor_machine, doctor_server, doctor_store
from flows.doctor_check import Check, Question, answer, ask_all, once
from flows.plan import make_plan
from flows.recipe import Recipe
from flows.resolve import resolve
from tasks.settings import Settings
from tasks.store.errors import DaptError
from tasks.store.json import JSON

LIMIT_S = 120.0
"""It takes 4 s on two idle cores; torch from a cold disk, on a machine at work, takes most of a minute."""
_COLOURS = {"ok": "green", "warning": "yellow", "fails": "red"}


def examine(settings: Settings, recipe: Recipe | None) -> list[Check]:
    """Ask everything.

    Args:
        settings: of the machine.
        recipe: whose needs are looked at too.
    """
    devices = once(doctor_machine.probe_devices)
    place = _once_asked("store", partial(doctor_store.store, settings))
    questions: dict[str, Question] = {
        "versions": doctor_machine.versions,
        "kernel cache": doctor_machine.kernel_cache,
        "devices": lambda: doctor_machine.judge_devices(
            devices(), doctor_machine.driver_devices(), settings, recipe, os.environ
        ),
        "memory": partial(doctor_machine.memory_and_cores, settings),
        "store": place,
        "caches": doctor_store.caches,
        "hub": doctor_hub.hub,
        "prefect": partial(doctor_server.server, settings, recipe),
    }
    if recipe is None:
        questions["disk"] = partial(doctor_store.free_disk, settings, None)
        return ask_all(questions, limit_s=LIMIT_S)
    named = {
        f"{one.kind} {one.name}": _once_asked(f"{one.kind} {one.name}", partial(doctor_hub.access, one))
        for one in doctor_hub.repositories(recipe)
    }
    for one in doctor_hub.benchmark_repositories(recipe):
        questions[f"{one.kind} {one.name}"] = partial(doctor_hub.access, one)
    questions["benchmarks"] = partial(doctor_hub.benchmarks, recipe)
    needs = [place, *named.values()]
    plan = partial(_by_plan, settings, recipe, needs, devices)
    return ask_all({**questions, **named, "plan": plan}, limit_s=LIMIT_S)


def _once_asked(name: str, question: Question) -> Callable[[], list[Check]]:
    return once(partial(answer, name, question))


def _by_plan(
    settings: Settings, recipe: Recipe, needs: list[Callable[[], list[Check]]], devices: Callable[[], JSON]
) -> Iterator[Check]:
    """What the recipe's plan asks of disk and memory; none is tried where what it reads is not there."""
    missing = [check.check for need in needs for check in need() if check.state == "fails"]
    if missing:
        told = f"not drawn up, because of: {', '.join(missing)}"
        yield Check("plan", "warning", told, "a plan, for disk and memory", "mend these, and ask again")
        yield from doctor_store.free_disk(settings, None)
        return
    try:
        plan = make_plan(resolve(recipe, settings))
    except DaptError as err:
        yield Check("plan", "fails", str(err), "a plan", "mend what is found; `dapt plan RECIPE` says it too")
        yield from doctor_store.free_disk(settings, None)
        return
    totals = plan["totals"]
    yield Check("plan", "ok", f"{totals['hit']} nodes of {recipe.name} stand, {totals['miss']} to make")
    yield from doctor_store.free_disk(settings, plan)
    yield from doctor_machine.judge_training_memory(plan["memory"], devices(), settings.ranks)


def told(checks: list[Check]) -> JSON:
    """The `doctor --json` object."""
    return {
        "checks": [
            {
                "check": one.check,
                "state": one.state,
                "found": one.found,
                "expected": one.expected,
                "do": one.do,
            }
            for one in checks
        ]
    }


def print_checks(checks: list[Check], console: Console) -> None:
    """The checks for a person: what fails last, where it is seen, then how many."""
    width = max(len(one.check) for one in checks)
    order = list(_COLOURS)
    for one in sorted(checks, key=lambda one: order.index(one.state)):
        line = Text(f"{one.state:<8} ", style=_COLOURS[one.state])
        line.append(f"{one.check:<{width}}  {one.found}", style="default")
        console.print(line, soft_wrap=True)
        for label, text in (("expected", one.expected), ("do", one.do)):
            if text:
                console.print(Text(f"{'':9}{'':{width}}  {label}: {text}"), soft_wrap=True)
    counts = {state: sum(one.state == state for one in checks) for state in order}
    told = [f"{number} {state}" for state, number in counts.items()]
    console.print(", ".join(told), highlight=False)
