"""Failures: what stands in the store of a node that could not be made, until it is."""

import contextlib
import datetime
import json

from tasks.store.errors import DaptError, JobError
from tasks.store.json import JSON
from tasks.store.masking import masked
from tasks.store.node import Node
from tasks.store.paths import Store


def failure_path(node: Node) -> str:
    """Where the failure of a node stands."""
    return f"failures/{node.stage}/{node.fingerprint}.json"


def record_failure(store: Store, node: Node, shard: str, run: str, err: Exception) -> None:
    """Write down why a node could not be made, secrets masked."""
    body: JSON = {
        "stage": node.stage,
        "shard": shard,
        "fingerprint": node.fingerprint,
        "error": str(err) if isinstance(err, DaptError) else masked(f"{type(err).__name__}: {err}"),
        "exit_code": err.exit_code if isinstance(err, DaptError) else 1,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": run,
        "log": err.log if isinstance(err, JobError) else "",
    }
    with contextlib.suppress(OSError):  # a full disk fails twice; the first failure is the one to tell
        store.write(failure_path(node), json.dumps(body, indent=1).encode())


def read_failure(store: Store, node: Node) -> JSON | None:
    """The failure of a node that stands, if one does: stage, shard, error, exit_code, at, run, log."""
    try:
        failure: JSON = json.loads(store.read(failure_path(node)))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return failure
