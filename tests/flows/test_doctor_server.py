"""What `dapt doctor` says of Prefect: a real server, a pool without a worker, then with a real one."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.doctor_check import Check
from flows.doctor_server import server
from flows.recipe import Recipe
from tasks.settings import Settings
from tests.flows.commands import Api, await_that
from tests.flows.tiny_recipe import recipe

pytestmark = pytest.mark.flow

Asked = dict[str, Check]

ASLEEP = {
    "name": "dapt: asleep",
    "enabled": False,
    "trigger": {"type": "event", "posture": "Reactive", "expect": ["never"], "threshold": 1, "within": 0},
    "actions": [{"type": "do-nothing"}],
}


def asked(url: str | None, pool: str | None = None, of: Recipe | None = None) -> Asked:
    """Checks by name."""
    with temporary_settings(
        restore_defaults={PREFECT_API_URL}, updates={PREFECT_API_URL: url} if url else {}
    ):
        return {check.check: check for check in server(Settings(store="s", ranks=1, pool=pool), of)}


class Refusing(BaseHTTPRequestHandler):
    """As a server with PREFECT_SERVER_API_AUTH_STRING: its health is told to all, the rest to who may ask."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path.endswith("/health") else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Silence."""


@pytest.fixture
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as there:
        threading.Thread(target=there.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{there.server_port}/api"
        there.shutdown()


@pytest.fixture
def worker(api: Api, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """`worker(pool)` starts a real one and waits until the server has heard it."""
    started: list[subprocess.Popen[bytes]] = []
    pools: list[str] = []
    words = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool"]
    env = os.environ | {"PREFECT_API_URL": api.url, "PREFECT_HOME": str(tmp_path / "prefect")}

    def start(pool: str) -> None:
        pools.append(pool)
        with (tmp_path / "worker.log").open("wb") as log:
            started.append(subprocess.Popen([*words, pool], env=env, stdout=log, stderr=log))
        await_that(lambda: api.ask(f"work_pools/{pool}/workers/filter"), "a worker is on line")

    yield start
    for process in started:
        process.kill()
        process.wait()
    for pool in pools:
        api.send("DELETE", f"work_pools/{pool}")


def test_no_server_is_well_unless_a_pool_is_named() -> None:
    assert asked(None)["prefect"].found == "no PREFECT_API_URL: a run starts a server of its own"
    assert asked(None)["prefect"].state == "ok"
    alone = asked(None, pool="gpu")["prefect"]
    assert (alone.state, "DAPT_POOL=gpu" in alone.found) == ("fails", True)


def test_a_server_that_is_not_there_fails() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = asked(f"http://127.0.0.1:{free.getsockname()[1]}/api")
    assert found["prefect"].state == "fails"
    assert "does not answer" in found["prefect"].found
    assert list(found) == ["prefect"]


def test_a_server_that_refuses_its_client_is_told_apart(refusing: str) -> None:
    found = asked(refusing)["prefect"]
    assert (found.state, found.found) == ("fails", f"{refusing} refuses this client (401)")
    assert "PREFECT_API_AUTH_STRING" in found.do


def test_a_pool_is_followed_from_missing_to_a_worker_on_line(api: Api, worker: Callable[[str], None]) -> None:
    missing = asked(api.url, pool="doctor")
    assert missing["prefect"].state == "ok"
    assert (missing["pool doctor"].state, missing["pool doctor"].found) == (
        "fails",
        "there is none on the server",
    )

    api.ask("work_pools/", {"name": "doctor", "type": "process"})
    idle = asked(api.url, pool="doctor")["pool doctor"]
    assert (idle.state, idle.found) == ("fails", "no worker is on line: what is sent there waits")
    assert idle.do == "prefect worker start --pool doctor"

    worker("doctor")
    assert asked(api.url, pool="doctor")["pool doctor"].found == "1 worker(s) on line"

    def change(**fields: Any) -> Check:
        api.send("PATCH", "work_pools/doctor", json=fields)
        return asked(api.url, pool="doctor")["pool doctor"]

    assert change(is_paused=True).do == "prefect work-pool resume doctor"
    assert change(is_paused=False, concurrency_limit=0).state == "fails"
    assert change(concurrency_limit=2).found == "1 worker(s) on line, 2 run(s) at once"


def test_deployments_make_their_pools_needed(api: Api) -> None:
    tiny = recipe().model_copy(update={"name": "doctored"})
    undeployed = asked(api.url, of=tiny)
    assert undeployed["deployments"].state == "ok"
    api.ask("work_pools/", {"name": "patients", "type": "process"})
    flow = api.ask("flows/", {"name": "adapt"})["id"]
    new = {"name": "doctored", "flow_id": flow, "work_pool_name": "patients"}
    made = api.ask("deployments/", new)
    found = asked(api.url, of=tiny)
    assert found["deployments"].state == "warning"
    assert "train-model/doctored, evaluate-model/doctored" in found["deployments"].found
    assert found["pool patients"].state == "fails"
    assert asked(api.url, pool="patients", of=tiny)["deployments"].state == "fails"
    asleep = api.ask("automations/", ASLEEP)
    told = asked(api.url, of=tiny)["automations"]
    assert (told.state, "dapt: asleep" in told.found) == ("warning", True)
    api.send("DELETE", f"automations/{asleep['id']}")
    api.send("DELETE", f"deployments/{made['id']}")
    api.send("DELETE", "work_pools/patients")
