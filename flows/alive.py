"""Runs and their processes: none is told to be at work that is dead, none works on that was cancelled.

A killed run reads "Running" on its server for ever. So each has a file on its store, locked while its process
lives: the lock is the kernel's and dies with it, and whoever comes next on a local store closes the run, and
those it called, as Crashed. On an object store it is the server's automation that notices.

A run that lost its worker, or never had one, is told by nobody that it was cancelled: it looks for itself.
"""

import contextlib
import contextvars
import fcntl
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed

from tasks.store.json import JSON
from tasks.store.paths import Store

logger = logging.getLogger(__name__)

RUNS = "runs"
_LOOK_S = 15.0
_LOOKS = 2
"""Times that a run is seen cancelled before its process ends itself: its worker is quicker."""
_OPEN = {"type": {"any_": ["RUNNING", "PENDING"]}}


@contextlib.contextmanager
def at_work(store: Store, run_id: UUID, recipe: str) -> Iterator[None]:
    """Be known as alive for a while; what is dead of this run's earlier tries, and on this store, is closed.

    Args:
        store: where the run works.
        run_id: the flow run of this process.
        recipe: its recipe's name.
    """
    if store.local is None:
        _close_earlier_tries(run_id)
        yield
        return
    folder = store.local_path(RUNS)
    folder.mkdir(parents=True, exist_ok=True)
    _close_dead_runs(folder, but=run_id)
    told: JSON = {"flow_run": str(run_id), "api": str(PREFECT_API_URL.value()), "recipe": recipe}
    told |= {"host": socket.gethostname(), "pid": os.getpid()}
    file = folder / f"{run_id}.json"
    with contextlib.suppress(FileNotFoundError), file.open() as earlier:
        fcntl.flock(earlier, fcntl.LOCK_EX)  # waits for a process of this run that was only taken for dead
    _close_earlier_tries(run_id)
    with file.with_suffix(".starting").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(json.dumps(told))
        handle.flush()
        Path(handle.name).replace(file)  # seen when it is locked
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def heeding_cancellation(run_id: UUID) -> Iterator[None]:
    """End this process when its run was cancelled, if for a while nobody else did."""
    ended = threading.Event()

    def watch() -> None:
        cancelled = 0
        while cancelled < _LOOKS:
            if ended.wait(_LOOK_S):
                return
            with contextlib.suppress(httpx.HTTPError, PrefectException), _client() as client:
                state = client.read_flow_run(run_id).state
                cancelled += state is not None and (state.is_cancelled() or state.is_cancelling())
        os.write(2, b"\nthe run was cancelled on the server\n")
        with contextlib.suppress(httpx.HTTPError, PrefectException), _client() as client:
            client.set_flow_run_state(run_id, Cancelled(message="its process ended itself"), force=True)
        os._exit(128 + signal.SIGTERM)  # what is on disk is whole, children die with us

    context = contextvars.copy_context()  # which server it is
    threading.Thread(target=context.run, args=[watch], daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _client() -> SyncPrefectClient:
    return get_client(sync_client=True)


def _close_earlier_tries(run_id: UUID) -> None:
    with _client() as client:
        _close_called(client, run_id)


def _is_dead(file: Path) -> bool:
    """Whether nobody holds a run's lock."""
    with contextlib.suppress(FileNotFoundError), file.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _told(file: Path) -> JSON | None:
    try:
        told: JSON = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return told


def _close_dead_runs(folder: Path, *, but: UUID) -> None:
    api = str(PREFECT_API_URL.value())
    for file in sorted(folder.glob("*.json")):
        if file.stem == str(but) or not _is_dead(file):
            continue
        told = _told(file)
        if told is not None and told["api"] == api:
            try:
                with _client() as client:
                    _close(client, UUID(told["flow_run"]))
            except (httpx.HTTPError, PrefectException) as err:
                logger.warning("the dead run %s cannot be closed on the server: %s", told["flow_run"], err)
                continue
        file.unlink(missing_ok=True)


def _close(client: SyncPrefectClient, run_id: UUID) -> None:
    """Mark a dead run, and what it called, as crashed."""
    with contextlib.suppress(ObjectNotFound):
        run = client.read_flow_run(run_id)
        _close_called(client, run_id)
        if run.state is not None and run.state.is_running():
            client.set_flow_run_state(run_id, Crashed(message="its process was killed"), force=True)
            logger.info("the run %s was dead and is closed", run.name)


def _close_called(client: SyncPrefectClient, run_id: UUID) -> None:
    """Close the open runs that a run called in its process; those on a pool have a life of their own."""
    called = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [str(run_id)]}, "state": _OPEN})
    for child in client.read_flow_runs(flow_run_filter=called):
        if child.deployment_id is None:
            _close(client, child.id)
