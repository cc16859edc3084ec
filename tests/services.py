"""What stands outside a run, as real processes on loopback: an object store, and nodes of a cluster."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import pytest

ROOT = Path(__file__).parents[1]
_WAIT_S = 90
_RAY = {"RAY_USAGE_STATS_ENABLED": "0"}


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        port: int = free.getsockname()[1]
    return port


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def object_store(name: str) -> Iterator[str]:
    """A bucket on an S3-compatible server, told to this process and its children by AWS_* variables."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    here = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with (
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for _ in range(_WAIT_S * 20):
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the object server ended"
                time.sleep(0.05)
        for variable, value in {**here, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(variable, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # clients of another server
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
        yield f"s3://{name}"
        server.kill()


def await_that(holds: Callable[[], object], what: str, seconds: float = _WAIT_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Machine:
    """A node of a cluster: processes bound to an address of their own, with a scratch folder of their own."""

    address: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def send(self, number: signal.Signals) -> None:
        """A signal to all processes of this node: Ray's workers have groups of their own."""
        mark = f"DAPT_SCRATCH={self.scratch}\0".encode()
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if mark in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), number)

    @contextmanager
    def running(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A program of this node, in a process group of its own that is killed in the end."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        own = {"DAPT_SCRATCH": str(self.scratch), "PYTHONPATH": str(ROOT)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DAPT_")}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                words,
                stdout=log,
                stderr=log,
                env=kept | own | self.settings,
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            kill_group(process)


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True, slots=True)
class Cluster:
    """Two nodes that work for whoever names the cluster."""

    runner: str
    """For DAPT_TASK_RUNNER."""
    machines: list[Machine]
    processes: list["subprocess.Popen[bytes]"]
    """Of the nodes, in the same order; the last is the one to do without."""

    @property
    def kind(self) -> str:
        return self.runner.partition(":")[0]


@contextmanager
def dask_cluster(folder: Path) -> Iterator[Cluster]:
    """A Dask scheduler and two workers of one thread each, every one at an address of its own."""
    port = free_port("127.0.0.4")
    address = f"tcp://127.0.0.4:{port}"
    lead = Machine("127.0.0.4", folder / "scheduler")
    machines = [Machine(f"127.0.0.{n}", folder / f"node-{n}") for n in (2, 3)]
    with ExitStack() as running:
        words = ["--host", lead.address, "--port", str(port), "--no-dashboard"]
        running.enter_context(lead.running(sys.executable, "-m", "distributed.cli.dask_scheduler", *words))
        workers = []
        for machine in machines:
            words = ["--host", machine.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            words += ["--local-directory", str(machine.folder)]
            node = [sys.executable, "-m", "distributed.cli.dask_worker", address, *words]
            workers.append(running.enter_context(machine.running(*node)))
        await_that(lambda: lead.log.read_text().count("Register worker") == len(machines), "two workers")
        yield Cluster(f"dask:{address}", machines, workers)


@contextmanager
def ray_cluster(folder: Path) -> Iterator[Cluster]:
    """Two Ray nodes of one core each, every one at an address of its own; the first is the head."""
    machines = [Machine(f"127.0.0.{n}", folder / f"node-{n}", _RAY) for n in (2, 3)]
    port, client = free_port("127.0.0.2"), free_port("127.0.0.2")
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    start += ["--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0"]
    first = [*start, "--head", f"--port={port}", f"--ray-client-server-port={client}"]
    with ExitStack() as running:
        # pytest's own folders are too long for the name of a socket
        brief = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        first += ["--include-dashboard=false", f"--temp-dir={running.enter_context(brief)}"]
        nodes = [running.enter_context(machines[0].running(*first, "--node-ip-address=127.0.0.2"))]
        await_that(lambda: answers("127.0.0.2", client), "the head")
        second = [*start, f"--address=127.0.0.2:{port}", "--node-ip-address=127.0.0.3"]
        nodes.append(running.enter_context(machines[1].running(*second)))
        await_that(lambda: "Ray runtime started" in machines[1].log.read_text(), "the second node")
        yield Cluster(f"ray:ray://127.0.0.2:{client}", machines, nodes)
