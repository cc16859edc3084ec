"""Promise: on a cluster of two nodes and an object store a run makes what threads on a disk make.

The nodes are processes at addresses of their own that share nothing but the store. Wants the extra `dask` or
`ray`, which other tests do without: it slows every start of Prefect (infra/test.sh makes .venv-cluster).
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.store.json import JSON
from tasks.store.manifest import NAME, read_manifest
from tasks.store.paths import Store
from tasks.store.shard import DATA
from tests.contracts.world import SMALL, STAGES, Done, World
from tests.services import Cluster, await_that, dask_cluster, object_store, ray_cluster

pytestmark = pytest.mark.flow
CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}


@pytest.fixture(scope="module")
def objects() -> Iterator[str]:
    with object_store("nodes") as bucket:
        yield bucket


def marked(kind: str) -> Any:
    """A kind of cluster, left out where its extra is not installed: before any server is started."""
    why = f"prefect-{kind} is not installed here: pip install 'daptflow[{kind}]', best apart from .venv"
    return pytest.param(kind, marks=pytest.mark.skipif(find_spec(f"prefect_{kind}") is None, reason=why))


@pytest.fixture(scope="module", params=[marked(kind) for kind in CLUSTERS])
def cluster(
    request: pytest.FixtureRequest, objects: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """One of each kind for all; the object store's address is in its nodes' environment."""
    with CLUSTERS[request.param](tmp_path_factory.mktemp(request.param)) as started:
        yield started


@dataclass(frozen=True, slots=True)
class Expected:
    """What threads on this machine's disk make."""

    nodes: dict[str, str]
    corpus: str

    def require_same(self, nodes: dict[str, str], corpus: str) -> None:
        """The same corpus, of the same bytes; how far a run works ahead of what it needs is not fixed."""
        assert Path(corpus).name == self.corpus
        both = nodes.keys() & self.nodes.keys()
        assert len(both) >= len(STAGES)
        assert {path: nodes[path] for path in both} == {path: self.nodes[path] for path in both}


@pytest.fixture(scope="module")
def expected(world: World) -> Expected:
    store = world.folder / "on-disk"
    done = world.run(store, world.recipe("on-disk", budgets=[SMALL]))
    return Expected(nodes_on(str(store)), Path(done.body["milestones"][0]["corpus"]).name)


def nodes_on(root: str) -> dict[str, str]:
    """The nodes of the data stages that stand on a store, by path: the sha256 of their data."""
    store, found = Store(root), {}
    for stage in STAGES:
        for group in store.names(stage):
            for path in [f"{stage}/{group}/{name}" for name in store.names(f"{stage}/{group}")]:
                manifest = read_manifest(store, path)
                if manifest is not None and manifest.files[0].name == DATA:
                    found[path] = manifest.files[0].sha256
    return found


def run(world: World, store: str, recipe: Path, cluster: Cluster) -> Done:
    words = ("run", recipe, "--until", "corpus")
    return world.call(store, *words, DAPT_TASK_RUNNER=cluster.runner, DAPT_WORKERS="4")


def ask(world: World, what: str, body: JSON) -> list[JSON]:
    """What the Prefect server knows."""
    answer = httpx.post(f"{world.server}/{what}/filter", json=body, timeout=60).raise_for_status()
    found: list[JSON] = answer.json()
    return found


def test_two_nodes_make_the_same_corpus_and_both_work(
    world: World, expected: Expected, objects: str, cluster: Cluster
) -> None:
    store, recipe = f"{objects}/{cluster.kind}", world.recipe(f"two-{cluster.kind}-nodes", budgets=[SMALL])
    before = {machine.scratch: machine.scratch.stat().st_mtime_ns for machine in cluster.machines}
    done = run(world, store, recipe, cluster)
    assert done.code == 0, done.stderr
    made = nodes_on(store)
    expected.require_same(made, done.body["milestones"][0]["corpus"])
    for scratch, stamp in before.items():
        assert scratch.stat().st_mtime_ns > stamp, f"the node of {scratch} made nothing"
        assert not list(scratch.iterdir()), "nothing is left in the scratch folder"

    def told() -> bool:
        lines = ask(world, "logs", {"logs": {"task_run_id": {"any_": ids}}})
        return any(line["name"].startswith("tasks.") for line in lines)

    name = f"domain corpus of two-{cluster.kind}-nodes"
    [flow] = ask(world, "flow_runs", {"flow_runs": {"name": {"any_": [name]}}})
    await_that(lambda: len(runs_of(world, flow)) == len(made), "every task run is recorded")
    assert {task["state_name"] for task in runs_of(world, flow)} <= {"Completed"}
    ids = [task["id"] for task in runs_of(world, flow)]
    await_that(told, "the nodes' log lines are on the server, with their task run")
    assert run(world, store, recipe, cluster).computed == {}


def runs_of(world: World, flow: JSON) -> list[JSON]:
    """The tasks of a flow run that made shards."""
    found = ask(world, "task_runs", {"flow_runs": {"id": {"any_": [flow["id"]]}}})
    return [task for task in found if " shard " in task["name"]]


def test_a_failure_on_a_node_comes_back_whole_and_a_re_run_completes(
    world: World, objects: str, cluster: Cluster
) -> None:
    root, recipe = f"{objects}/{cluster.kind}", world.recipe(f"two-{cluster.kind}-nodes", budgets=[SMALL])
    store, whole = Store(root), nodes_on(root)
    assert whole, "the test before has filled it"
    victim = next(path for path in whole if path.startswith("download/"))
    for path in whole:
        manifest = read_manifest(store, path)
        assert manifest is not None
        if manifest.stage == "filtering" and manifest.inputs["download"] == victim.rpartition("/")[2]:
            store.remove(f"{path}/{NAME}")
    data = store.read(f"{victim}/{DATA}")
    store.write(f"{victim}/{DATA}", data[:-1] + bytes([data[-1] ^ 1]))
    failed = run(world, root, recipe, cluster)
    assert failed.code == 3
    assert f"{root}/{victim}/{DATA}: it does not hash to what its manifest says" in failed.stderr
    assert [(f["stage"], f["shard"]) for f in failed.body["failed"]] == [("filtering", "00000")]
    again = run(world, root, recipe, cluster)
    assert (again.code, again.computed) == (0, {"download": 1, "filtering": 1})
    assert nodes_on(root) == whole


def beside(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_node_killed_at_work_is_done_without(
    world: World, expected: Expected, objects: str, cluster: Cluster
) -> None:
    name = f"{cluster.kind}-killed"
    store, recipe = f"{objects}/{name}", world.recipe(name, budgets=[SMALL])
    machine, node = cluster.machines[-1], cluster.processes[-1]
    scratch = machine.scratch

    def kill() -> None:
        while True:
            if any(scratch.iterdir()):
                machine.send(signal.SIGSTOP)
                if any(scratch.iterdir()):  # still: it is at work, and now it cannot end
                    return machine.send(signal.SIGKILL)
                machine.send(signal.SIGCONT)
            time.sleep(0.001)

    killer = beside(kill)
    done = run(world, store, recipe, cluster)
    killer.join(30)
    assert node.wait(30) == -signal.SIGKILL
    assert list(scratch.iterdir()), "it was killed at work"
    assert done.code == 0, done.stderr
    expected.require_same(nodes_on(store), done.body["milestones"][0]["corpus"])
