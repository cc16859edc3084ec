"""`dapt` in a process of its own, its server seen through its API, and processes seen through /proc."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.flows.world import World

DAPT = (sys.executable, "-c", "from deployments.dapt import main; main()")
SLOW_DAPT = (sys.executable, str(Path(__file__).with_name("slow_dapt.py")))


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> dict[str, Any]:
        """Its one JSON object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        value: dict[str, Any] = json.loads(lines[0])
        return value


def dapt(world: World, *words: str, **env: str) -> Done:
    """Run a command to its end."""
    program = SLOW_DAPT if "SLOW" in env or "BREAK" in env else DAPT
    done = subprocess.run(
        [*program, *words],
        check=False,
        cwd=world.folder,
        env=world.env(**env),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def started(world: World, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, as a shell starts it; killed when it still runs in the end."""
    program = SLOW_DAPT if "SLOW" in env or "BREAK" in env else DAPT
    process = subprocess.Popen(
        [*program, *words],
        cwd=world.folder,
        env=world.env(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def await_that(holds: Callable[[], object], what: str, seconds: float = 90, *, every: float = 0.05) -> None:
    """Wait until something holds, looking `every` so many seconds: seldom where that is work for others."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(every)


def made(world: World, stage: str) -> int:
    """How many nodes of a stage stand."""
    return sum(1 for _ in world.store.glob(f"{stage}/*/*/manifest.json"))


def processes_of(folder: Path) -> list[int]:
    """Live processes whose command line names a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


class Api:
    """A Prefect server, asked directly."""

    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """A success; asked again for as long as SQLite is locked, as Prefect's client does."""
        deadline = time.monotonic() + 60
        while True:
            answer = httpx.request(method, f"{self.url}/{path}", timeout=60, **request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                return answer.raise_for_status()
            time.sleep(1)

    def get(self, path: str, **params: str) -> Any:
        return self.send("GET", path, params=params).json()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.send("POST", path, json=body or {}).json()

    def flow_runs(self, *names: str) -> dict[str, list[str]]:
        """State names by name of a flow run, oldest first."""
        found: dict[str, list[str]] = {}
        for run in self.ask("flow_runs/filter", {"sort": "START_TIME_ASC"}):
            if not names or run["name"] in names:
                found.setdefault(run["name"], []).append(run["state_name"])
        return found

    def artifacts(self, *flow_runs: str) -> dict[str, list[dict[str, Any]]]:
        """Artifacts of flow runs of these names, by key, oldest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        body = {"flow_runs": {"name": {"any_": flow_runs}}, "limit": 200, "sort": "CREATED_DESC"}
        for artifact in reversed(self.ask("artifacts/filter", body)):
            found.setdefault(artifact["key"], []).append(artifact)
        return found

    def history(self, artifact: str) -> list[dict[str, Any]]:
        """What an artifact told when it was made (its description alone) and at each update, by its id."""
        body = {
            "event": {"prefix": ["prefect.artifact."]},
            "resource": {"id": [f"prefect.artifact.{artifact}"]},
            "order": "ASC",
        }
        return [event["payload"] for event in self.ask("events/filter", {"filter": body})["events"]]

    def task_runs(self, flow_run: str | None = None) -> list[dict[str, Any]]:
        """Every task run, page by page; only those of flow runs of a name where one is given."""
        body: dict[str, Any] = {"flow_runs": {"name": {"any_": [flow_run]}}} if flow_run else {}
        found: list[dict[str, Any]] = []
        while page := self.ask("task_runs/filter", {**body, "offset": len(found), "limit": 200}):
            found += page
        return found


@contextlib.contextmanager
def served(world: World) -> Iterator[Api]:
    """The history of a world's store, served by `dapt ui`, which Ctrl-C ends."""
    with started(world, "ui") as process:
        assert process.stdout is not None
        url, rest = process.stdout.readline().split(" ", 1)
        assert rest == "(Ctrl-C ends it)\n"
        yield Api(f"{url}/api")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
