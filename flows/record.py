"""The record of each recipe run on a store: what `plan` compares with and where a moving revision is kept.

It stands in `recipes/<name>/<digest>.json`, the digest being of the whole resolved recipe.
"""

import datetime
import json

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.recipe import Recipe
from tasks.store.json import JSON
from tasks.store.paths import Store


class Record(BaseModel):
    """One recipe, as it was last run on a store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: JSON
    digest: str
    at: str
    revisions: dict[str, str]
    """Commit of each Hub source, by corpus."""
    versions: dict[str, int]
    """`VERSION` of each stage."""
    nodes: dict[str, list[str]]
    """Paths of the nodes the recipe stands on, made or still missing, by stage, in order."""


def _folder(name: str) -> str:
    return f"recipes/{name}"


def write_record(
    store: Store,
    recipe: Recipe,
    *,
    revisions: dict[str, str],
    versions: dict[str, int],
    nodes: dict[str, list[str]],
) -> None:
    """Write what a recipe stands on."""
    record = Record(
        recipe=recipe.model_dump(mode="json"),
        digest=recipe.digest,
        at=datetime.datetime.now(datetime.UTC).isoformat(),
        revisions=revisions,
        versions=versions,
        nodes=nodes,
    )
    text = json.dumps(record.model_dump(mode="json"), indent=1)
    store.write(f"{_folder(recipe.name)}/{recipe.digest[:16]}.json", text.encode())


def read_records(store: Store, name: str) -> list[Record]:
    """Every record of a recipe's name, the newest first; unreadable ones are left out."""
    found = []
    for file in store.names(_folder(name)):
        try:
            found.append(Record.model_validate_json(store.read(f"{_folder(name)}/{file}")))
        except (ValidationError, FileNotFoundError):
            continue
    return sorted(found, key=lambda record: record.at, reverse=True)


def read_record(store: Store, recipe: Recipe) -> Record | None:
    """The record of just this recipe."""
    return next((r for r in read_records(store, recipe.name) if r.digest == recipe.digest), None)
