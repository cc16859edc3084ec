"""infra/compose.yaml, read as Compose reads it: anchors, merge keys, variables."""

import re
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).parents[2] / "infra"
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


class MissingVariable(Exception):
    """A variable that has to be given was not; Compose refuses to start anything."""


def load(given: dict[str, str]) -> dict[str, Any]:
    """The services, with what is `given` in the place of variables; the environment's nulls stay."""
    body: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
    services: dict[str, Any] = _with_variables(body["services"], given)
    return services


def _with_variables(value: Any, given: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_variables(one, given) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_variables(one, given) for one in value]
    return _VARIABLE.sub(lambda match: _value(match, given), value) if isinstance(value, str) else value


def _value(match: re.Match[str], given: dict[str, str]) -> str:
    name, kind, rest = match.groups()
    if given.get(name):
        return given[name]
    if kind == ":?":
        raise MissingVariable(name)
    return rest or ""
