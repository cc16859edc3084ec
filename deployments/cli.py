"""The command line whole: what `flows.cli` has, and `dapt deploy`, which knows the catalog."""

from typing import Annotated

import typer
from prefect.client.orchestration import get_client
from rich.console import Console

from deployments.catalog import CPU, catalog
from deployments.deploy import Server, print_changes
from flows import cli
from flows.pool import why_idle
from flows.recipe import load_recipe
from flows.server import require_server
from flows.terminal import (
    AsJson,
    Overrides,
    RecipeFile,
    print_json,
    read_settings,
    stdout_for_json,
    told_as_json,
)
from tasks.store.json import JSON
from tasks.store.paths import Store


@cli.app.command()
def deploy(
    recipe: RecipeFile,
    pool: Annotated[str, typer.Option(help="The work pool of trainings and evaluations.")] = "gpu",
    gpus: Annotated[int, typer.Option(min=0, help="Runs a new GPU pool takes; 0: the GPUs here.")] = 0,
    cron: Annotated[
        str, typer.Option(help="When to look for a new budget (UTC); empty: only when told.")
    ] = "0 5 * * *",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell the difference, change nothing.")] = False,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Put a recipe on the server: pools, queues, limits, budget, deployments, schedule, automations."""
    with told_as_json(as_json, {"changes": []}), stdout_for_json(as_json):
        wanted, settings = load_recipe(recipe, overrides), read_settings()
        url = require_server()
        items = catalog(
            wanted,
            store=Store(settings.store).root,
            pool=pool,
            num_gpus=gpus or settings.ranks,
            cron=cron,
        )
        with get_client(sync_client=True) as client:
            server = Server(client)
            changes = list(server.changes(items))
            told = [change.told() for change in changes]
            if not as_json:
                print_changes(told, Console())
            for change in [] if dry_run else changes:
                server.apply(change)
    if as_json:
        print_json({"changes": told})
    else:
        _tell_next(wanted.name, url, told, dry_run=dry_run, pools=(CPU, pool))


def _tell_next(name: str, url: str, changes: list[JSON], *, dry_run: bool, pools: tuple[str, str]) -> None:
    console = Console()
    done = f"{len(changes)} change{'s' * (len(changes) > 1)}" if changes else "nothing to change"
    console.print(f"{done}{', not applied' if dry_run and changes else ''} on {url}", highlight=False)
    if dry_run:
        return
    for pool in dict.fromkeys(pools):
        idle = why_idle(pool)
        if idle is not None:
            console.print(idle, highlight=False, soft_wrap=True)
    console.print(f"start it with: prefect deployment run adapt/{name}", highlight=False)


def main() -> None:
    """The program `dapt`."""
    cli.main()
