"""The services of infra/compose.yaml for real, without containers: their commands, with their environment.

Postgres and Redis are Debian's. Only what names a place is changed: hosts and ports to this machine's
loopback, the store to a folder.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.flows.world import ROOT
from tests.infra.compose import load

_STARTS_S = 120.0


def programs() -> dict[str, str]:
    """Where Postgres' and Redis' programs are, by name; empty where one is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    path = os.pathsep.join([*map(str, folders[-1:]), os.environ["PATH"]])
    names = ("initdb", "postgres", "createdb", "psql", "pg_dump", "redis-server")
    found = {name: shutil.which(name, path=path) or "" for name in names}
    return found if all(found.values()) and importlib.util.find_spec("prefect_redis") else {}


@dataclass
class Team:
    """The services at work."""

    folder: Path
    given: dict[str, str]
    """What the environment file holds."""
    ports: dict[str, int]
    data: Path
    """Postgres' and Redis' own folder: whole Secret blocks stand in it, encrypted."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['server']}/api"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def environment(self, service: str, **more: str) -> dict[str, str]:
        """A service's, at this machine's addresses."""
        body = load({**self.given, "DAPT_STORE": str(self.store)})[service]["environment"]
        found = {name: self._moved(str(value)) for name, value in body.items() if value is not None}
        if "PREFECT_SERVER_API_HOST" in found:
            found |= {"PREFECT_SERVER_API_HOST": "127.0.0.1"}
            found |= {"PREFECT_SERVER_API_PORT": str(self.ports["server"])}
            found |= {"PREFECT_SERVER_DATABASE_HOST": "127.0.0.1"}
            found |= {"PREFECT_SERVER_DATABASE_PORT": str(self.ports["postgres"])}
        home = self.folder / "home" / service
        home.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        kept |= {"HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "PYTHONPATH": _python_path()}
        kept |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"}
        return {**kept, **found, **more}

    def _moved(self, text: str) -> str:
        text = text.replace("127.0.0.1:4200", f"127.0.0.1:{self.ports['server']}")
        for name, port in (("redis", 6379), ("server", 4200)):
            text = text.replace(f"//{name}:{port}", f"//127.0.0.1:{self.ports[name]}")
            text = text.replace(f"@{name}:{port}", f"@127.0.0.1:{self.ports[name]}")
        return text

    def command(self, service: str) -> list[str]:
        """A service's, with this interpreter's `prefect`."""
        words: list[str] = load(self.given)[service]["command"]
        assert words[0] == "prefect"
        return [sys.executable, "-m", "prefect", *words[1:]]

    def start(self, name: str, words: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """A process of the team, its output in a file."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words, stdout=log, stderr=log, start_new_session=True, **{"cwd": self.folder} | options
            )
        self.processes[name] = process
        return process

    def serve(self, service: str, **more: str) -> None:
        """Start a service of Compose."""
        self.start(
            service,
            self.command(service),
            env=self.environment(service, **more),
            stdin=subprocess.DEVNULL,
        )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def await_address(self, name: str, url: str) -> None:
        """Wait until a service answers well."""
        deadline = time.monotonic() + _STARTS_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url, timeout=_STARTS_S).is_success:
                    return
            assert self.processes[name].poll() is None, self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.1)

    def query(self, sql: str) -> list[list[str]]:
        """Rows of the server's database."""
        words = [programs()["psql"], *self._database(), "-AtF", "\t", "-c", sql]
        done = subprocess.run(words, env=self._password(), capture_output=True, text=True, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def dump(self) -> str:
        """Every row of the server's database but the blocks'."""
        words = [programs()["pg_dump"], *self._database(), "--data-only", "--exclude-table=block_document"]
        return subprocess.run(words, env=self._password(), capture_output=True, text=True, check=True).stdout

    def _database(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.ports["postgres"]), "-U", "prefect", "-d", "prefect"]

    def _password(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PGPASSWORD": self.given["POSTGRES_PASSWORD"]}


def _python_path() -> str:
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, given)]))


def free_ports(*names: str) -> dict[str, int]:
    """A free port of loopback each."""
    with contextlib.ExitStack() as held:
        sockets = {name: held.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names}
        return {name: listener.getsockname()[1] for name, listener in sockets.items()}


@contextlib.contextmanager
def team_server(folder: Path, given: dict[str, str]) -> Iterator[Team]:
    """Postgres, Redis, the migration, the server and its services; a worker is the test's to start."""
    with tempfile.TemporaryDirectory(prefix="dapt-team-", dir="/tmp") as data:
        team = Team(folder, given, free_ports("postgres", "redis", "server", "worker"), Path(data))
        try:
            _start_databases(team)
            words, env = team.command("migrate"), team.environment("migrate")
            assert team.start("migrate", words, env=env).wait(_STARTS_S) == 0, team.log("migrate")
            team.serve("server")
            team.serve("services")
            team.await_address("server", f"{team.url}/ready")
            yield team
        finally:
            for process in reversed(team.processes.values()):
                _end(process)


def _start_databases(team: Team) -> None:
    """Postgres does not run as root: where tests do, it is user postgres'."""
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        entry = pwd.getpwnam("postgres")
        os.chown(team.data, entry.pw_uid, entry.pw_gid)
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    found, port = programs(), str(team.ports["postgres"])
    password = team.data / "password"
    password.write_text(team.given["POSTGRES_PASSWORD"])
    password.chmod(0o644)
    cluster = str(team.data / "postgres")
    made = [found["initdb"], "-D", cluster, "-U", "prefect", f"--pwfile={password}", "-A", "scram-sha-256"]
    subprocess.run([*made, "--no-sync"], cwd=team.data, capture_output=True, check=True, **user)
    words = [found["postgres"], "-D", cluster, "-p", port, "-k", "", "-h", "127.0.0.1", "-F"]
    team.start("postgres", words, cwd=team.data, **user)
    redis = team.start("redis", [found["redis-server"], "-"], stdin=subprocess.PIPE)
    assert redis.stdin is not None
    settings = f"requirepass {team.given['REDIS_PASSWORD']}\nport {team.ports['redis']}\nbind 127.0.0.1\n"
    redis.stdin.write(f"{settings}dir {team.folder}\nrdbcompression no\nsave ''\n".encode())
    redis.stdin.close()
    create = [found["createdb"], "-h", "127.0.0.1", "-p", port, "-U", "prefect", "prefect"]
    env = {"PATH": os.environ["PATH"], "PGPASSWORD": team.given["POSTGRES_PASSWORD"]}
    deadline = time.monotonic() + _STARTS_S
    while subprocess.run(create, env=env, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, team.log("postgres")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """All of a process' group; politely first."""
    for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
