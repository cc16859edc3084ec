"""The command line.

Exit codes: 0 done · 1 a shard or stage failed, or the sources hold too little · 2 bad recipe or arguments ·
3 store damaged · 4 a model lost more than `[evaluation.tolerance]` allows, and is kept · 130 interrupted.
With `--json` stdout holds one JSON object and nothing else.
"""

import contextlib
import contextvars
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

os.environ.setdefault(
    "DO_NOT_TRACK", "1"
)  # read by Prefect when it is imported: no telemetry, no notice of it
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")

import typer
from prefect import tags
from prefect.settings import PREFECT_API_URL
from rich.console import Console

from flows import adoption, inspect, look
from flows import doctor as checks
from flows import lineage as origins
from flows.adapt import adapt
from flows.budget import add_milestone, variable_of, written
from flows.display import Display, set_up_logging
from flows.forgetting import doubts, forgotten, losses_of
from flows.gc import collect
from flows.outcome import NOTHING_DONE, outcome, reaches, save_record, walks_of
from flows.plan import make_plan
from flows.pool import why_idle
from flows.propose import propose_recipe
from flows.recipe import load_recipe
from flows.resolve import Resolved, held
from flows.server import cancel_runs, local_server, prefect_server, require_server, server_home
from flows.shown import tags_of
from flows.terminal import (
    AsJson,
    Overrides,
    RecipeFile,
    print_json,
    read_settings,
    resolve_file,
    run_app,
    stderr,
    stdout_for_json,
    told_as_json,
    without_collector,
)
from tasks.download.tokens import TokenSource
from tasks.report.forgetting import beyond
from tasks.store.errors import DaptError, Forgotten
from tasks.store.json import JSON
from tasks.store.paths import Store
from tasks.store.shard import require_disk
from tasks.store.use import using

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
Until = Literal["corpus", "train", "evaluate", "report"]


def main() -> None:
    """Run the command line; what a user can act on ends with its text and its code, without a traceback."""
    set_up_logging(stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    run_app(app)


def _stop(number: int, _frame: FrameType | None) -> None:
    """Stop at once: all that is on disk is whole, children die with us; Prefect is told if it answers.

    The telling is done by a thread of its own, since the main thread may hold any lock; cut off after 3 s.
    """
    os.write(2, b"\nstopped; run the same command again to continue\n")
    teller = threading.Thread(target=cancel_runs, daemon=True)

    def leave() -> None:
        teller.start()
        teller.join(3.0)
        os._exit(130 if number == signal.SIGINT else 128 + number)

    threading.Thread(target=leave, daemon=True).start()


@app.command()
def init(
    model: Annotated[str, typer.Argument(help="A Hub id or a folder.")],
    data: Annotated[str, typer.Argument(help="A Hub data set, or a glob of files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the recipe is written.")] = Path(
        "recipe.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a recipe that fits a model and data, checked, with what was found as comments."""
    propose_recipe(model, data, output, read_settings(), force=force)
    print(f"{output} is written; next: dapt plan {output}")


app.command()(look.plan)


@app.command()
def run(
    recipe: RecipeFile,
    until: Annotated[Until, typer.Option(help="Stop after this leg.")] = "report",
    update: Annotated[bool, typer.Option("--update", help="Let a moving source revision move.")] = False,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Run the whole DAG: what stands is kept, what is missing is made."""
    with told_as_json(as_json, NOTHING_DONE), stdout_for_json(as_json):
        with without_collector():
            resolved = resolve_file(recipe, overrides, update=update)
            walks = walks_of(resolved)
            planned = make_plan(resolved, until, walks=walks)
            require_disk(resolved.store, planned["totals"]["disk_bytes"])
            save_record(resolved, walks=walks)
        if planned["totals"]["miss"]:
            del walks  # of no use while anything is made
            with using(resolved.store, resolved.recipe.name):
                done, failure = _run(resolved, until, planned, quiet=as_json)
        else:
            _tell_notes(resolved)
            stood = f"{resolved.recipe.name}: nothing to do, all {planned['totals']['hit']} nodes stand"
            stderr.print(stood, highlight=False)
            done, failure = outcome(resolved, until, {"made": []}, walks=walks), None
        losses = losses_of(resolved) if reaches(until, "evaluate") else []
        done["forgetting"] = [loss.model_dump(mode="json") for loss in beyond(losses)]
        if failure is None and reaches(until, "evaluate"):
            failure = forgotten(losses)
            for doubt in doubts(resolved.recipe, losses):
                stderr.print(doubt, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json({**done, "error": str(failure) if failure else None})
    elif failure is None or isinstance(failure, Forgotten):
        if failure is not None:
            print(failure)
        inspect.print_outcome(done, Console())
    if failure is not None:
        raise failure


def _run(resolved: Resolved, until: Until, planned: JSON, *, quiet: bool) -> tuple[JSON, DaptError | None]:
    """Make what is missing; what was done is told also when it failed."""
    recipe = resolved.recipe
    _tell_notes(resolved)
    stderr.print(
        f"{recipe.name}: {planned['totals']['miss']} nodes to make, {planned['totals']['hit']} stand",
        highlight=False,
    )
    if resolved.settings.pool and not PREFECT_API_URL.value():
        raise DaptError(str(why_idle(resolved.settings.pool)))
    failure, summary = None, {}
    with prefect_server(resolved.store, resolved.settings) as url:
        stderr.print(f"watch it at {url}", highlight=False)
        idle = why_idle(resolved.settings.pool) if resolved.settings.pool else None
        if idle:
            stderr.print(idle, highlight=False, soft_wrap=True)
        with contextlib.nullcontext() if quiet and not stderr.is_terminal else Display(stderr).showing():
            try:
                with tags(*tags_of(recipe)), held(resolved):
                    summary = _beside(adapt, recipe, until)
            except Forgotten as err:  # told from what stands, as it is where nothing was to do
                summary = err.summary or {}
            except DaptError as err:
                failure, summary = err, err.summary or {}
    return outcome(resolved, until, summary), failure


def _tell_notes(resolved: Resolved) -> None:
    for source in resolved.sources.values():
        for note in source.notes:
            stderr.print(note, markup=False, highlight=False, soft_wrap=True)


def _beside(work: Callable[..., JSON], *arguments: object) -> JSON:
    """Run in a thread of its own: signals stay ours, the main thread is free to take them at once.

    In the main thread Prefect puts a handler of its own for SIGTERM, and waits for the tasks at work.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(contextvars.copy_context().run, work, *arguments).result()


for looking in (look.status, look.show, look.verify, look.compare):
    app.command()(looking)


@app.command()
def adopt(
    path: Annotated[str, typer.Argument(help="A folder, glob, URL, save_to_disk folder or Hub data set.")],
    tokenizer: Annotated[str, typer.Option(help="What made the ids: a Hub id or a folder.")],
    name: Annotated[str, typer.Option(help="What recipes call them; left out: made of the path.")] = "",
    column: Annotated[str, typer.Option(help="The column of token ids.")] = "input_ids",
    sequence_length: Annotated[int, typer.Option(help="Rows that all have it are taken as packed.")] = 2000,
    subset: Annotated[str, typer.Option(help="Of a Hub data set.")] = "",
    split: Annotated[str, typer.Option(help="Of a Hub data set or a saved one; left out: train.")] = "",
    revision: Annotated[str, typer.Option(help="Of a Hub data set; left out: the newest.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take existing token shards in, validated, with their provenance."""
    source = TokenSource(path, column=column, subset=subset, split=split, revision=revision)
    with told_as_json(as_json, {"name": None}), stdout_for_json(as_json), Display(stderr).showing():
        settings, length = read_settings(), sequence_length
        told = adoption.adopt(
            source, name=name, tokenizer=tokenizer, sequence_length=length, settings=settings
        )
    for note in told["notes"]:
        stderr.print(note, markup=False, highlight=False, soft_wrap=True)
    print_json(told) if as_json else adoption.print_adopted(told, Console())


@app.command()
def gc(
    keep: Annotated[list[Path], typer.Option(metavar="RECIPE", help="Left out: all ever run here.")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no kept recipe reaches; never what a live run needs."""
    blank = {"kept": [], "removed": [], "bytes": 0, "dry_run": dry_run}
    with told_as_json(as_json, blank), stdout_for_json(as_json):
        told = collect(keep, read_settings(), dry_run=dry_run, console=stderr if as_json else Console())
    if as_json:
        print_json(told)
    elif told["removed"]:
        print("a dry run: nothing was removed" if dry_run else "removed")


@app.command()
def lineage(
    path: Annotated[str, typer.Argument(help="A node's folder or a file in it: checkpoint, shard, report.")],
    step: Annotated[int | None, typer.Option(help="The documents that a training saw in this step.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what something was made of: files, revisions, configs, code; or what a step saw."""
    with told_as_json(as_json, {"path": path}):
        told = origins.lineage(path) if step is None else origins.documents_of_step(path, step)
    show_it = origins.print_lineage if step is None else origins.print_documents
    print_json(told) if as_json else show_it(told, Console())


@app.command()
def budget(
    recipe: RecipeFile,
    tokens: Annotated[str, typer.Argument(help="The milestone to append, such as 1B.")],
    as_json: AsJson = False,
) -> None:
    """Append a milestone to a deployed recipe's budget: its trigger, or its schedule, runs the growth."""
    wanted = load_recipe(recipe)
    with told_as_json(as_json, {"recipe": wanted.name, "variable": None, "before": None, "after": None}):
        require_server()
        before, after = add_milestone(wanted, tokens)
    variable = variable_of(wanted.name)
    if as_json:
        print_json({"recipe": wanted.name, "variable": variable, "before": before, "after": after})
    elif before == after:
        print(f"{variable} holds {written(after)} already: nothing to do")
    else:
        print(f"{variable}: {written(before)} → {written(after)}; adapt/{wanted.name} runs the growth")


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="None: the machine alone.")] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Tell what will not work, before it doesn't: versions, devices, disk, network, access, pools."""
    with stdout_for_json(as_json):
        found = checks.examine(
            read_settings(), load_recipe(recipe, overrides) if recipe is not None else None
        )
    print_json(checks.told(found)) if as_json else checks.print_checks(found, Console())
    if any(one.state == "fails" for one in found):
        sys.exit(1)


@app.command()
def ui() -> None:
    """Serve the history of this store's runs in the foreground; it runs no work."""
    settings = read_settings()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        local_server(server_home(Store(settings.store), settings)) as url,
    ):
        print(f"{url} (Ctrl-C ends it)", flush=True)
        signal.pause()
