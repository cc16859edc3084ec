"""What all commands share: their arguments, their errors, one JSON object on stdout, all else on stderr."""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler

from flows.recipe import load_recipe
from flows.resolve import Resolved, resolve
from tasks.runtime.imports import Late
from tasks.runtime.logs import OUTPUT
from tasks.settings import Settings
from tasks.store.errors import DaptError, RecipeError
from tasks.store.json import JSON
from tasks.store.masking import mask_logs

if TYPE_CHECKING:
    from flows import budget
else:
    budget = Late("flows.budget")

stderr = Console(stderr=True)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file.")]
Overrides = Annotated[list[str], typer.Option("--set", help="Override a field: training.learning_rate=2e-4")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def run_app(app: typer.Typer) -> None:
    """Run a command; what a user can act on ends with its text and its code, without a traceback."""
    try:
        app()
    except DaptError as err:
        for line in str(err).splitlines():
            stderr.print(f"error: {line}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(err.exit_code)


@contextlib.contextmanager
def told_as_json(as_json: bool, blank: JSON) -> Iterator[None]:
    """On a failure that leaves nothing else to tell, stdout gets its JSON object all the same.

    Args:
        as_json: whether JSON was asked for.
        blank: the command's object with nothing in it.
    """
    try:
        yield
    except DaptError as err:
        if as_json and err.exit_code != RecipeError.exit_code:
            print_json({**blank, "error": str(err)})
        raise


@contextlib.contextmanager
def stdout_for_json(as_json: bool) -> Iterator[None]:
    """Whatever a library prints goes to stderr, so that stdout holds the JSON alone."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def print_json(body: JSON) -> None:
    """The one object."""
    sys.stdout.write(msgspec.json.encode(body).decode() + "\n")


def read_settings() -> Settings:
    """The machine's side.

    Raises:
        RecipeError: a variable holds what it cannot mean.
    """
    try:
        return Settings()
    except ValidationError as err:
        told = [f"DAPT_{str(e['loc'][0]).upper()}: {e['msg']} (found {e['input']!r})" for e in err.errors()]
        raise RecipeError("\n".join(told)) from err


def server_is_named() -> bool:
    """Whether there may be a Prefect server of the user's, told by the environment or a profile."""
    profiles = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "profiles.toml"
    named = os.environ.get("PREFECT_API_URL")
    return bool(named) or (profiles.is_file() and "PREFECT_API_URL" in profiles.read_text())


def resolve_file(recipe: Path, overrides: list[str], *, update: bool = False) -> Resolved:
    """A recipe's file on the store of the settings, at the budget that its server holds for it."""
    wanted = load_recipe(recipe, overrides)
    if server_is_named() and not any(override.strip().startswith("budget") for override in overrides):
        wanted, told = budget.at_server_budget(wanted)
        if told:
            stderr.print(told, markup=False, highlight=False, soft_wrap=True)
    return resolve(wanted, read_settings(), update=update)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """No garbage collection for a while, nor ever of what this leaves.

    Sixty thousand nodes and manifests are made to be kept, and hold no cycles: to look through them again and
    again took two fifths of a plan of 10,000 shards.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Quiet(logging.Filter):
    """Prefect tells every task's end and prints tracebacks; a person wants decisions, errors, numbers."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("prefect") or (
            record.name.startswith("tasks") and record.levelno < logging.WARNING
        ):
            return False  # what fails is told once, by who sums up the run; the server has all lines
        if record.name == OUTPUT:
            return False  # of a job's warnings the one that matters comes back as its error
        record.exc_info = None
        return True


def log_to(console: Console) -> None:
    """All loggers to the console, secrets masked; warnings of libraries to none."""
    mask_logs()
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False, show_level=False)
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Quiet())
    logging.getLogger().handlers[:] = [handler]
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
