"""The local Prefect server of one store: shared by the runs that use it, gone with the last of them.

Prefect's own ephemeral mode loses task runs, and a server left running is one nobody owns. So each store has
at most one, and three kernel locks, dropped with their holder however it dies, say who needs it:

`users.lock`   held shared by every run; the server waits for it exclusively, and ends when it gets it.
`server.lock`  held by the server, inherited from the run that started it: held means alive; has the address.
`start.lock`   makes looking and starting one step.

Its history (SQLite) stays in `home`, so `dapt ui` shows the runs of the past.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import uvicorn
from prefect import Flow, settings, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectException, PrefectHTTPStatusError
from prefect.logging.handlers import APILogHandler, APILogWorker
from prefect.states import Cancelled, Cancelling, Crashed

from tasks.runtime.imports import import_for_good
from tasks.settings import Settings
from tasks.store.errors import DaptError
from tasks.store.paths import Store

logger = logging.getLogger(__name__)

SERVER_SETTINGS = {
    "PREFECT_SERVER_API_HOST": "127.0.0.1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",  # one row at a time falls behind
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",  # whole seconds; below 1 it spins
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    "DO_NOT_TRACK": "1",
}
_READY_S = 180
_ANSWER_S = 30
_FLUSH_S = 120.0
_STARTS = 3
_live: dict[UUID, str] = {}
"""Flow runs of this process and those it sent to a pool, and the API that knows them."""


@contextlib.contextmanager
def prefect_server(store: Store, where: Settings) -> Iterator[str]:
    """The server of PREFECT_API_URL (environment or profile) where there is one, else this store's own."""
    if settings.PREFECT_API_URL.value():
        yield require_server()
        return
    with local_server(server_home(store, where)) as local:
        yield local
        _flush(local)


def require_server() -> str:
    """The address of the server of PREFECT_API_URL, which answers.

    Raises:
        DaptError: none is named, it does not answer, or it refuses us.
    """
    url = str(settings.PREFECT_API_URL.value() or "")
    if not url:
        raise DaptError(
            "no Prefect server is named: start one with `prefect server start`, then set PREFECT_API_URL to "
            "its address, such as http://127.0.0.1:4200/api"
        )
    try:
        httpx.get(f"{url}/health", timeout=_ANSWER_S)
    except (httpx.TransportError, httpx.InvalidURL) as err:
        raise DaptError(
            f"the Prefect server {url} does not answer ({err}); start it, or unset PREFECT_API_URL (in the "
            "environment and in Prefect's profile) to have one started here"
        ) from err
    try:
        with get_client(sync_client=True) as client:
            client.request("GET", "/admin/version")
    except PrefectHTTPStatusError as err:
        if err.response.status_code in (401, 403):
            raise DaptError(
                f"the Prefect server {url} refuses us; set PREFECT_API_AUTH_STRING to its user:password"
            ) from None
    return url.removesuffix("/api")


def server_home(store: Store, where: Settings) -> Path:
    """Where a store's server keeps its history: in a local store itself, else on this machine, by name."""
    if store.local is not None:
        return store.local / "prefect"
    name = hashlib.sha256(store.root.encode()).hexdigest()[:16]
    return Path(where.scratch or tempfile.gettempdir()) / f"dapt-prefect-{os.getuid()}" / name


def cancel_runs() -> None:
    """Mark the live runs of this process as cancelled, if the server answers; from any thread."""
    if not _live:
        return
    url = next(iter(_live.values()))
    with (
        contextlib.suppress(httpx.HTTPError, PrefectException),
        settings.temporary_settings({settings.PREFECT_API_URL: url}),
        get_client(sync_client=True) as client,
    ):
        for run_id in reversed(list(_live)):  # those called before those that called them
            run = client.read_flow_run(run_id)
            if run.state is not None and run.state.is_final():
                continue
            # a run on a pool has a worker, which ends its process
            ending = Cancelling if run.deployment_id else Cancelled
            client.set_flow_run_state(run_id, ending(message="interrupted"), force=True)


def remember_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A flow's `on_running` hook: its run is this process' to cancel, and its log the server's to show."""
    remember(flow_run.id)
    log_to_server()


def remember(run_id: UUID) -> None:
    """A flow run, here or on a pool, is this process' to cancel."""
    _live[run_id] = str(settings.PREFECT_API_URL.value())


def log_to_server() -> None:
    """Have what our loggers say within a run stand in that run's log, from INFO on; told twice is told once.

    Prefect's own setting for it, PREFECT_LOGGING_EXTRA_LOGGERS, leaves the level at the root's WARNING.
    """
    for name in ("tasks", "flows"):
        ours = logging.getLogger(name)
        ours.setLevel(logging.INFO)
        if not any(isinstance(handler, APILogHandler) for handler in ours.handlers):
            handler = APILogHandler()
            handler.addFilter(_is_within_a_run)
            ours.addHandler(handler)


def _is_within_a_run(_record: logging.LogRecord) -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


@contextlib.contextmanager
def local_server(home: Path) -> Iterator[str]:
    """Point Prefect in this process at the server of `home`, started when none runs; yields its address.

    Raises:
        DaptError: it does not start; names its log.
    """
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "users.lock").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits only while a server without users is ending
        with (home / "start.lock").open("a") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            url, started = _reach(home)
            if started:
                _close_dead_runs(url)
        with settings.temporary_settings(
            {settings.PREFECT_API_URL: f"{url}/api", settings.PREFECT_HOME: home}
        ):
            ending = threading.Event()
            port = int(url.rsplit(":", 1)[-1])
            threading.Thread(target=_revive, args=[home, port, ending], daemon=True).start()
            try:
                yield url
            finally:
                ending.set()


def _reach(home: Path) -> tuple[str, bool]:
    for _ in range(_STARTS):  # one may be found that is just dying
        url, started = _find_or_start(home)
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{url}/api/ready", timeout=_READY_S).raise_for_status()  # answers when it is ready
            return url, started
        time.sleep(0.5)
    raise DaptError(f"the local Prefect server does not start; its log is {home / 'server.log'}")


def _revive(home: Path, port: int, ending: threading.Event) -> None:
    """Start a server that died under its users again, at its address: clients wait and send again."""
    for _ in range(_STARTS):
        with (home / "server.lock").open("a") as server:
            fcntl.flock(server, fcntl.LOCK_EX)
        if ending.is_set():
            return
        _find_or_start(home, port)


def _find_or_start(home: Path, port: int = 0) -> tuple[str, bool]:
    with (home / "server.lock").open("a+") as server:
        try:
            fcntl.flock(server, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            server.seek(0)
            return server.read(), False
        with socket.create_server(("127.0.0.1", port)) as listener, (home / "server.log").open("ab") as log:
            port = listener.getsockname()[1]
            server.truncate(0)
            server.write(f"http://127.0.0.1:{port}")
            server.flush()
            kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
            subprocess.Popen(
                [sys.executable, "-m", "flows.server", str(home), str(listener.fileno())],
                env=kept
                | SERVER_SETTINGS
                | {
                    "PREFECT_HOME": str(home),
                    "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
                    "PREFECT_SERVER_API_PORT": str(port),  # where the UI looks for the API
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(server.fileno(), listener.fileno()),
                start_new_session=True,  # Ctrl-C is for the run, which then flushes
            )
        return f"http://127.0.0.1:{port}", True


def _close_dead_runs(url: str) -> None:
    """A killed run reads "Running" for ever; where no server was alive, no run is."""
    running = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    with (
        settings.temporary_settings({settings.PREFECT_API_URL: f"{url}/api"}),
        get_client(sync_client=True) as client,
    ):
        for run in client.read_flow_runs(flow_run_filter=running):
            client.set_flow_run_state(run.id, Crashed(message="its process was killed"), force=True)


@task(name="flush", cache_policy=NO_CACHE, persist_result=False)
def _mark() -> None:
    """A last task run. They are recorded in order: when this one is, all are."""


def _flush(url: str) -> None:
    """Wait until every task run and log line is recorded: the server's queue is in memory."""
    marker = _mark(return_state=True).state_details.task_run_id
    deadline = time.monotonic() + _FLUSH_S
    try:
        while httpx.get(f"{url}/api/task_runs/{marker}").json().get("state_type") != "COMPLETED":
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done in {_FLUSH_S:g} s")
            time.sleep(0.1)
        httpx.delete(f"{url}/api/task_runs/{marker}")
    except (httpx.HTTPError, TimeoutError) as error:
        logger.warning("the Prefect server did not record everything, this run's history has gaps: %s", error)
    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


def serve(home: Path, listener: socket.socket) -> None:
    """Be the server, until nobody uses it."""
    threading.Thread(target=_end_when_unused, args=[home], daemon=True).start()
    create_app = import_for_good("flows.own_pages").create_app
    config = uvicorn.Config(create_app, factory=True, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])


def _end_when_unused(home: Path) -> None:
    with (home / "users.lock").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(15)
        os._exit(1)  # stuck; a new run may be waiting


if __name__ == "__main__":
    serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
