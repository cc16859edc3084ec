"""Bring a Prefect server to what the catalog says: the difference is told, then applied.

What users change on the server and the catalog does not speak of stays: a pool's limit and template, what
else stands there. Applied twice, the second time finds nothing to do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from rich.console import Console

from deployments.catalog import Item
from flows.budget import milestones_of
from tasks.store.errors import DaptError
from tasks.store.json import JSON

_PLACES = {"work pool": "/work_pools/", "variable": "/variables/", "deployment": "/deployments/"}


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done to one item."""

    item: Item
    found: JSON | None
    """What stands on the server; None: it is to be made."""
    fields: dict[str, tuple[Any, Any]]
    """Of what stands: each field that differs, as it is and as it is to be."""

    def told(self) -> JSON:
        """As `deploy --json` lists it."""
        told: JSON = {"kind": self.item.kind, "name": self.item.name}
        if self.found is None:
            return {**told, "action": "create"}
        fields = {name: {"old": old, "new": new} for name, (old, new) in self.fields.items()}
        return {**told, "action": "update", "fields": fields}


class Server:
    """The items of a catalog on a Prefect server, over its REST API."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client

    def changes(self, items: list[Item]) -> Iterator[Change]:
        """What the server lacks of the catalog, and where it differs."""
        for item in items:
            found = self._found(item)
            fields = _differences(item, found) if found is not None else {}
            if found is None or fields:
                yield Change(item, found, fields)

    def apply(self, change: Change) -> None:
        """Make or change an item.

        Raises:
            DaptError: the server refuses it.
        """
        item, found = change.item, change.found
        if item.kind == "automation":
            self._apply_automation(item, found)
        elif item.kind == "deployment":  # one call makes and changes it; its schedules are replaced
            flow, name = item.name.split("/")
            flow_id = self._ask("POST", "/flows/", {"name": flow})["id"]
            self._ask("POST", "/deployments/", {**item.body, "name": name, "flow_id": flow_id})
        elif item.kind == "work queue":
            pool = item.name.split("/")[0]
            self._ask("POST", f"/work_pools/{pool}/queues", {**item.first, **item.body})
        elif found is None:
            self._ask("POST", _PLACES[item.kind], {"name": item.name, **item.first, **item.body})
        else:
            self._ask("PATCH", f"/variables/name/{item.name}", item.body)

    def _found(self, item: Item) -> JSON | None:
        if item.kind == "automation":
            named = {"automations": {"name": {"any_": [item.name]}}}
            found: list[JSON] = self._ask("POST", "/automations/filter", named)
            return self._with_names(found[0]) if found else None
        path = {
            "work pool": f"/work_pools/{item.name}",
            "work queue": f"/work_pools/{item.name.replace('/', '/queues/')}",
            "variable": f"/variables/name/{item.name}",
            "deployment": f"/deployments/name/{item.name}",
        }[item.kind]
        there: JSON | None = self._ask("GET", path, None, or_none=True)
        return there

    def _with_names(self, automation: JSON) -> JSON:
        """An automation whose action tells the name of a deployment, as the catalog does."""
        for action in automation["actions"]:
            if action.get("deployment_id"):
                found = self._ask("GET", f"/deployments/{action['deployment_id']}", None, or_none=True)
                if found is not None:
                    flow = self._ask("GET", f"/flows/{found['flow_id']}", None)
                    action["deployment"] = f"{flow['name']}/{found['name']}"
        return automation

    def _apply_automation(self, item: Item, found: JSON | None) -> None:
        actions = [dict(action) for action in item.body["actions"]]
        for action in actions:
            name = action.pop("deployment", None)
            if name:
                action["deployment_id"] = self._ask("GET", f"/deployments/name/{name}", None)["id"]
        body = {"name": item.name, **item.first, **item.body, "actions": actions}
        if found is None:
            self._ask("POST", "/automations/", body)
        else:
            self._ask("PUT", f"/automations/{found['id']}", body)

    def _ask(self, method: Any, path: Any, body: JSON | None, *, or_none: bool = False) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
            answer.raise_for_status()
        except (PrefectHTTPStatusError, httpx.HTTPStatusError) as err:
            if or_none and err.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise DaptError(
                f"the Prefect server answers {err.response.status_code} to {method} {path}: "
                f"{err.response.text[:500]}"
            ) from err
        return answer.json() if answer.content else None


def _differences(item: Item, found: JSON) -> dict[str, tuple[Any, Any]]:
    """The fields of an item that differ on the server: as they are, and as they are to be."""
    if item.kind == "variable":
        return _grown(item, found)
    there = dict(found)
    if item.kind == "deployment":
        there["concurrency_limit"] = (found.get("global_concurrency_limit") or {}).get("limit")
    wanted = dict(item.body)
    if item.kind == "deployment":
        wanted.setdefault("schedules", [])
    return {
        name: (there.get(name), value) for name, value in wanted.items() if not _same(value, there.get(name))
    }


def _grown(item: Item, found: JSON) -> dict[str, tuple[Any, Any]]:
    """A budget on the server is kept, unless the recipe's goes on from it: it grows there too."""
    here, there = milestones_of(item.body["value"]), milestones_of(found["value"])
    return {"value": (found["value"], item.body["value"])} if set(there) < set(here) else {}


def _same(wanted: Any, found: Any) -> bool:
    """Whether what stands says what is wanted; the server adds fields of its own."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_same(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(wanted) != len(found):
            return False
        if all(isinstance(value, str) for value in wanted):  # tags and events: sets
            return sorted(wanted) == sorted(found)
        return all(_same(*pair) for pair in zip(wanted, found, strict=True))
    return bool(wanted == found)


def print_changes(changes: list[JSON], console: Console) -> None:
    """The difference for a person: `+` what is to be made, `~` what is to change."""
    for change in changes:
        made = change["action"] == "create"
        console.print(f"{'+' if made else '~'} {change['kind']} {change['name']}", highlight=False)
        for name, field in change.get("fields", {}).items():
            for line in _lines(name, field["old"], field["new"]):
                console.print(f"    {line}", highlight=False, soft_wrap=True, markup=False)


def _lines(name: str, old: Any, new: Any) -> Iterator[str]:
    """`recipe.training.learning_rate: 0.001 → 0.0001`, for each value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in new:
            if not _same(new[key], old.get(key)):
                yield from _lines(f"{name}.{key}", old.get(key), new[key])
    else:
        yield f"{name}: {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
