"""The commands that look at what stands: `dapt plan | status | show | verify | compare`.

They start without Prefect.
"""

import gc
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from flows.plan import make_plan
from flows.plan_table import print_plan
from flows.terminal import (
    AsJson,
    Overrides,
    RecipeFile,
    log_to,
    print_json,
    read_settings,
    resolve_file,
    run_app,
    server_is_named,
    stderr,
    stdout_for_json,
    told_as_json,
    without_collector,
)
from tasks.runtime.imports import Late
from tasks.settings import Settings
from tasks.store.json import JSON
from tasks.store.paths import Store

if TYPE_CHECKING:
    from flows import compare as comparison
    from flows import inspect, pool
else:
    comparison, inspect, pool = Late("flows.compare"), Late("flows.inspect"), Late("flows.pool")

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def main() -> str | int | None:
    """Run one of these commands; what is imported by now is never collected.

    Returns:
        What it ends with, for `leave`.
    """
    gc.freeze()
    gc.enable()
    log_to(stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        run_app(app)
    except SystemExit as end:
        return end.code
    return None


def leave(code: str | int | None) -> None:
    """End without taking apart what was read: of 60,000 nodes and manifests that takes 0.3 s."""
    if not isinstance(code, int | None):
        raise SystemExit(code)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # whoever read it has had enough
        code = code or 1
    os._exit(code or 0)


def _stop(number: int, _frame: FrameType | None) -> None:
    """Stop at once: nothing here is half written."""
    os.write(2, b"\nstopped\n")
    os._exit(130 if number == signal.SIGINT else 128 + number)


@app.command()
def plan(recipe: RecipeFile, overrides: Overrides = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Tell what a run would do, and change nothing."""
    with told_as_json(as_json, {"recipe": None}), stdout_for_json(as_json), without_collector():
        resolved = resolve_file(recipe, overrides)
        told = {**make_plan(resolved), "pool": _pool(resolved.settings)}
    if as_json:
        print_json(told)
    else:
        print_plan(told, Console())


def _pool(settings: Settings) -> JSON | None:
    """The pool that trainings and evaluations go to, and why it does nothing now; None: there is none."""
    return {"name": settings.pool, "idle": pool.why_idle(settings.pool)} if settings.pool else None


@app.command()
def status(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="None: all on this store.")] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Tell what exists and what is missing, failed shards first; needs no server."""
    on_server = server_is_named()
    if recipe is None:
        of_store = inspect.status_of_store(Store(read_settings().store), on_server=on_server)
        print_json(of_store) if as_json else inspect.print_status_of_store(of_store, Console())
        return
    with told_as_json(as_json, {"recipe": None}), without_collector():
        told = inspect.status(resolve_file(recipe, overrides), on_server=on_server)
    print_json(told) if as_json else inspect.print_status(told, Console())


@app.command()
def show(
    recipe: RecipeFile,
    what: Annotated[Literal["dropped", "packed"], typer.Argument(help="dropped | packed")],
    reason: Annotated[str, typer.Option(help="Only documents dropped for this reason.")] = "",
    count: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Look at documents that went, with why; or at packed rows, decoded."""
    with told_as_json(as_json, {"recipe": None, what: []}):
        resolved = resolve_file(recipe, overrides)
        found = (
            inspect.dropped(resolved, reason, count) if what == "dropped" else inspect.packed(resolved, count)
        )
    print_json({"recipe": resolved.recipe.name, what: found}) if as_json else inspect.print_found(
        found, Console()
    )


@app.command()
def verify(recipe: RecipeFile, overrides: Overrides = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Re-hash everything the recipe stands on; what is damaged is named and set aside."""
    with told_as_json(as_json, {"recipe": None}):
        told = inspect.verify(resolve_file(recipe, overrides))
    print_json(told) if as_json else inspect.print_verified(told, Console())
    if told["damaged"]:
        sys.exit(3)


_RUN = "A recipe's file; behind it @ and a milestone or base, else its largest milestone measured."


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help=_RUN)],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="Another: RECIPE, RECIPE@400M, RECIPE@base.")],
    as_json: AsJson = False,
) -> None:
    """Compare two milestones, recipes or bases on the same items: differences with intervals and p."""
    with told_as_json(as_json, comparison.NOTHING_COMPARED), stdout_for_json(as_json), without_collector():
        told = comparison.compare(run_a, run_b)
    print_json(told) if as_json else comparison.print_comparison(told, Console())
