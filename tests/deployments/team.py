"""A team's Prefect: a server of its own, workers for the pools, recipes deployed; all real processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.variables import Variable

from deployments.catalog import catalog
from deployments.deploy import Server
from flows.budget import variable_of
from tasks.store.json import JSON
from tests.flows.commands import Api, await_that
from tests.flows.world import World

_DEADLINE_S = 600


class Team(Api):
    """A server that may die and come back at its address, and workers by pool."""

    def __init__(self, world: World) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{self.port}/api")
        self.world = world
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def env(self) -> dict[str, str]:
        """Of everything that is on this server."""
        return self.world.env(
            PREFECT_HOME=str(self.world.folder / "prefect"),
            PREFECT_API_URL=self.url,
            PREFECT_SERVER_API_PORT=str(self.port),
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            PREFECT_SERVER_REGISTER_BLOCKS_ON_START="false",
            PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE="100",
            PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL="1",
            PREFECT_WORKER_QUERY_SECONDS="1",
            DO_NOT_TRACK="1",
        )

    def start(self, name: str, *words: str) -> None:
        """Start a program of Prefect's in a session of its own."""
        with (self.world.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "prefect", *words],
                cwd=self.world.folder,
                env=self.env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_server(self) -> None:
        self.start("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        await_that(self.answers, "the server answers", _DEADLINE_S, every=0.5)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def start_worker(self, pool: str) -> None:
        self.start(pool, "worker", "start", "--pool", pool, "--name", f"{pool}-{len(self.processes)}")

    def children(self, name: str) -> list[int]:
        """The processes that a worker started."""
        return [pid for pid in _pids() if _parent(pid) == self.processes[name].pid]

    def kill(self, name: str, *, flows: bool = False) -> None:
        """SIGKILL a server or a worker, its flows too where asked."""
        for pid in [self.processes[name].pid, *(self.children(name) if flows else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.processes[name].wait()

    def end(self) -> None:
        """Leave nothing behind."""
        for name, process in self.processes.items():
            if process.poll() is None:
                self.kill(name, flows=name != "server")

    def deploy(self, *overrides: str, cron: str = "") -> list[JSON]:
        """What `dapt deploy` does; the changes it told."""
        items = catalog(
            self.world.load(*overrides), store=str(self.world.store), pool="gpu", num_gpus=1, cron=cron
        )
        with temporary_settings({PREFECT_API_URL: self.url}), get_client(sync_client=True) as client:
            server = Server(client)
            changes = list(server.changes(items))
            for change in changes:
                server.apply(change)
        return [change.told() for change in changes]

    def set_budget(self, recipe: str, value: str) -> None:
        """Edit a recipe's variable, as the UI does."""
        with temporary_settings({PREFECT_API_URL: self.url}):  # the client asks again where SQLite is locked
            Variable.set(variable_of(recipe), value, overwrite=True)

    def start_run(self, recipe: str, **parameters: Any) -> str:
        """Run a deployment of adapt; the id of its run."""
        deployment = self.get(f"deployments/name/adapt/{recipe}")["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        run: str = self.ask(f"deployments/{deployment}/create_flow_run", body)["id"]
        return run

    def run(self, run_id: str) -> JSON:
        found: JSON = self.get(f"flow_runs/{run_id}")
        return found

    def states(self, run_id: str) -> list[str]:
        """The names of all states that a run was in, oldest first."""
        found = self.get("flow_run_states/", flow_run_id=run_id)
        return [state["name"] for state in sorted(found, key=lambda state: state["timestamp"])]

    def runs(self, name: str) -> list[JSON]:
        """The flow runs of a name, in the order in which they started."""
        found: list[JSON] = self.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
        return sorted(found, key=lambda run: run["start_time"] or "later")

    def await_state(self, run_id: str, *states: str) -> JSON:
        """Wait until a run is in one of these states (their names); the run."""
        await_that(
            lambda: self.run(run_id)["state_name"] in states,
            f"{states}: it is {self.run(run_id)['state_name']}",
            _DEADLINE_S,
            every=1,
        )
        return self.run(run_id)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextlib.contextmanager
def a_team(world: World) -> Iterator[Team]:
    """A server without workers, for a while."""
    team = Team(world)
    try:
        team.start_server()
        yield team
    finally:
        team.end()
