"""Identity of a computation: sha256 over canonical JSON of (stage, version, config, inputs).

At the roots stand contents (digests of source files, tokenizers, models), never a name, a path or a date.
What cannot be written as JSON raises: there is no `str(o)` fallback, which would make two things alike.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from json.encoder import encode_basestring as _quoted
from pathlib import Path

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces, no NaN; equal values give equal text.

    Raises:
        TypeError: something in it is not plain JSON (a set, a path, a key that is no string).
    """
    _require_json(value, "$")
    return _ENCODER.encode(value)


def _require_json(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: the key {key!r} is {type(key).__name__}, expected str")
            _require_json(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _require_json(item, f"{where}[{number}]")
    elif not (value is None or isinstance(value, str | int | float | bool)):
        raise TypeError(f"{where} is {type(value).__name__}, which has no canonical JSON")


def fingerprint(stage: str, version: int, config: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    """64 hex digits that identify what a stage makes of its inputs under a config.

    The digest is of `canonical_json` of the four, put together here from its parts: a plan makes one for
    every stage of every shard, and what only their inputs tell apart is made once for all.
    """
    names = tuple(sorted(inputs))
    template = _template(stage, version, _told_once(config), names)
    body = template % tuple([_quoted(inputs[name]) for name in names])
    return hashlib.sha256(body.encode()).hexdigest()


_told: dict[int, tuple[Mapping[str, object], str]] = {}
"""Configs by their id, each held so that the id stays its own. The shards of a chain share one."""
_MAX_TOLD = 64


def _told_once(config: Mapping[str, object]) -> str:
    """The canonical JSON of a config that nobody writes to any more."""
    known = _told.get(id(config))
    if known is None:
        if len(_told) >= _MAX_TOLD:
            _told.clear()
        known = _told[id(config)] = (config, canonical_json(dict(config)))
    return known[1]


@lru_cache(maxsize=256)
def _template(stage: str, version: int, config: str, names: tuple[str, ...]) -> str:
    """The canonical JSON of a computation, with a `%s` for each of its inputs."""
    given = ",".join(f"{_quoted(name)}:\0" for name in names)
    told = f'{{"config":{config},"inputs":{{{given}}},"stage":{_quoted(stage)},"version":{version:d}}}'
    return told.replace("%", "%%").replace("\0", "%s")


def combined_digest(digests: Iterable[str]) -> str:
    """One digest for several, in order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@cache
def source_hash(package: str) -> str:
    """Digest of the .py files of a room (`tasks.filtering`): told as drift, never part of an identity."""
    folder = Path(__file__).parents[2].joinpath(*package.split("."))
    return combined_digest(
        f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(folder.glob("*.py"))
    )
