"""What orchestration costs: seconds of `dapt plan`, of a `dapt run` with nothing to do, and of one task.

    python -m tests.bench.bench_orchestration [--shards 10 100 1000 10000] [--tasks 10 100] [--times 3]

Plan and no-op run are whole commands, each a process of its own, on a recipe of N shards (and two milestones)
all of whose nodes stand. The source files are real and small; one shard is built for real, and the manifests
of all others are its own with their identity, each beside a data file of the size it tells. `start` is the
interpreter with what a plan imports and nothing done; `files` is the reference, taken in this process: read
every manifest and stat every data file of the recipe, and nothing else.

A task: `build_corpus` on a Prefect server of its own, two shards at once, each of five short documents,
against the same build functions called one after another in this process. The difference is what
orchestration costs a task, the flow's own start and end included; six of them are told as a share of the
computing that a shard of the default 64 MB takes (SHARD_S).
"""

import argparse
import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from flows.chain import room_of
from flows.corpus import build_corpus
from flows.milestones import corpus_nodes
from flows.outcome import nodes_of, save_record, walks_of
from flows.resolve import Resolved, held
from flows.server import prefect_server
from tasks.store.manifest import NAME, Manifest, read_manifest, stands
from tasks.store.node import Node
from tasks.store.shard import build_node
from tests.flows.commands import DAPT
from tests.flows.made import BUILDS, make_corpora
from tests.flows.world import LENGTH, World, make_world, prose, write_jsonl

START = (sys.executable, "-c", "import flows.look")
WATCH = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(code)
"""
"""Runs a command and tells of it. A small process: a child's peak begins with what its parent holds."""
SEQUENCES = 500
"""That each made-up shard packs."""
DATA = b"x" * 200
SHARD_S = 50.0
"""Seconds of one core for a shard of 64 MB: .78 s a MB, the sum of the plan's guesses of each stage."""


@dataclasses.dataclass(frozen=True)
class Spent:
    """A command that has ended."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def spend(command: tuple[str, ...], world: World) -> Spent:
    """Run a command to its end, which must be a good one."""
    with (world.folder / "out").open("w") as out:
        watched = (sys.executable, "-c", WATCH, *command)
        done = subprocess.run(
            watched, cwd=world.folder, env=world.env(), stdout=subprocess.PIPE, stderr=out, check=False
        )
    assert done.returncode == 0, (world.folder / "out").read_text()
    return Spent(*map(float, done.stdout.split()))


def best(command: tuple[str, ...], world: World, times: int) -> Spent:
    """The quickest of some: the machine may have other work."""
    return min((spend(command, world) for _ in range(times)), key=lambda spent: spent.wall_s)


def write_node(resolved: Resolved, node: Node, pattern: Manifest) -> None:
    """Have a node stand: one small data file, and the pattern's manifest with this node's identity."""
    folder = resolved.store.local_path(node.path)
    folder.mkdir(parents=True)
    (folder / "data.parquet").write_bytes(DATA)
    packed = node.stage == "packing"
    file = msgspec.structs.replace(
        pattern.files[0],
        name="data.parquet",
        bytes=len(DATA),
        rows=SEQUENCES if packed else pattern.files[0].rows,
    )
    told = msgspec.structs.replace(
        pattern,
        stage=node.stage,
        version=node.version,
        fingerprint=node.fingerprint,
        config=node.config,
        inputs=node.inputs,
        files=[file],
    )
    (folder / NAME).write_text(json.dumps(told.to_json(), indent=1))


def make_standing(folder: Path, shards: int) -> World:
    """A world of so many shards whose every node stands, up to the report."""
    world = make_world(folder, shards=1, per_shard=5)
    make_corpora(world.resolve("budget.milestones=['256']"))
    first = world.resolve().chains["domain"].shards[0].nodes
    patterns = {stage: read_manifest(world.resolve().store, node.path) for stage, node in first.items()}
    (folder / "domain" / "0.jsonl").unlink()
    for number in range(shards):
        write_jsonl(folder / "domain" / f"{number:06d}.jsonl", [f"{number:06d} {prose(0)}"])
    size = (folder / "domain" / "000000.jsonl").stat().st_size
    tokens = shards * SEQUENCES * LENGTH
    recipe = world.recipe.read_text().replace('["5K", "11K"]', f"[{tokens // 2}, {tokens}]")
    lines = (f"shard_bytes = {size}" if "shard_bytes" in line else line for line in recipe.splitlines())
    world.recipe.write_text("\n".join(lines))
    resolved = world.resolve()
    for chain in resolved.chains.values():
        for shard in chain.shards:
            for stage, node in shard.nodes.items():
                pattern = patterns[stage]
                assert pattern is not None
                if stands(resolved.store, node.path) is None:
                    write_node(resolved, node, pattern)
    some = patterns["packing"]
    assert some is not None
    for node in corpus_nodes(resolved, walks_of(resolved)["domain"]):
        write_node(resolved, node, some)
    scored = msgspec.structs.replace(some, details={"bits_per_byte": 1.0})
    nodes = nodes_of(resolved, walks_of(resolved))
    for stage in ("base", "training", "evaluation", "report"):
        for node in nodes[stage]:
            write_node(resolved, node, scored)
    save_record(resolved)
    return world


def read_all(world: World) -> tuple[int, float]:
    """How many nodes stand, and seconds to read their manifests and stat their data files: best of three."""
    resolved = world.resolve()
    paths = [path for of_stage in resolved.records[0].nodes.values() for path in of_stage]
    found = [(path, read_manifest(resolved.store, path)) for path in paths]
    manifests = [resolved.store.address(f"{path}/{NAME}") for path in paths]
    data = [resolved.store.address(f"{path}/{m.files[0].name}") for path, m in found if m is not None]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        for path in manifests:
            file = os.open(path, os.O_RDONLY)
            os.read(file, 1 << 20)
            os.close(file)
        for path in data:
            os.stat(path)  # noqa: PTH116 - the reference is what the system takes
        seconds.append(time.perf_counter() - started)
    return len(data), min(seconds)


def print_commands(shards: list[int], times: int, folder: Path) -> None:
    """A line a number of shards: plan and no-op run, beside start and files."""
    columns = ("shards", "nodes", "start", "files", "plan", "CPU", "x files", "MB", "no-op run", "CPU", "MB")
    print(" ".join(f"{column:>9}" for column in columns))
    for count in shards:
        world = make_standing(folder / str(count), count)
        nodes, files_s = read_all(world)
        start = best(START, world, times)
        plan = best((*DAPT, "plan", "recipe.toml"), world, times)
        run = best((*DAPT, "run", "recipe.toml"), world, times)
        assert "nothing to do" in (world.folder / "out").read_text()
        ratio = (plan.wall_s - start.wall_s) / files_s
        seconds = (start.wall_s, files_s, plan.wall_s, plan.cpu_s, ratio)
        print(
            f"{count:9,} {nodes:9,}", *(f"{value:9.2f}" for value in seconds), f"{plan.peak_mb:9.0f}", end=" "
        )
        print(f"{run.wall_s:9.2f} {run.cpu_s:9.2f} {run.peak_mb:9.0f}", flush=True)


def build_directly(resolved: Resolved) -> int:
    """Every shard of the domain, one node after another without Prefect; how many nodes."""
    shards = resolved.chains["domain"].shards
    for shard in shards:
        for stage, node in shard.nodes.items():
            build_node(resolved.store, node, BUILDS[stage], room=room_of(stage), shard=shard.name)
    return sum(len(shard.nodes) for shard in shards)


def print_tasks(shards: list[int], folder: Path) -> None:
    """A line a number of shards: a task of the corpus flow, beside the function it calls."""
    make_corpora(make_world(folder / "compile", shards=1, per_shard=5).resolve("budget.milestones=['256']"))
    print(f"{'shards':>7} {'tasks':>7} | {'direct ms':>9} {'a task ms':>9} {'ratio':>6} {'overhead ms':>11} "
          f"{'of a 64 MB shard':>16}")  # fmt: skip
    for count in shards:
        seconds = []
        for kind in ("direct", "flow"):
            world = make_world(folder / f"{kind} {count}", shards=count, per_shard=5)
            os.environ |= {"DAPT_STORE": str(world.store), "DAPT_WORKERS": "2"}
            budget = "budget.milestones=['256', '100M']"  # more than there is: every shard is made
            with held(world.resolve(budget)) as resolved:
                if kind == "direct":
                    started = time.perf_counter()
                    tasks = build_directly(resolved)
                    seconds.append(time.perf_counter() - started)
                    continue
                with prefect_server(resolved.store, resolved.settings):
                    started = time.perf_counter()
                    state = build_corpus(resolved.recipe, return_state=True)
                    seconds.append(time.perf_counter() - started)
                assert "the sources hold" in str(state.message), state
        direct, task = (spent / tasks * 1000 for spent in seconds)
        share = 6 * (task - direct) / 1000 / SHARD_S
        print(
            f"{count:7,} {tasks:7,} | {direct:9.1f} {task:9.1f} {task / direct:6.1f} {task - direct:11.1f} "
            f"{share:16.2%}",
            flush=True,
        )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", nargs="*", type=int, default=[10, 100, 1000, 10_000])
    parser.add_argument("--tasks", nargs="*", type=int, default=[10, 100])
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)  # a line a task
    with tempfile.TemporaryDirectory(prefix="dapt-bench-") as folder:
        print_commands(args.shards, args.times, Path(folder))
        print_tasks(args.tasks, Path(folder))


if __name__ == "__main__":
    main()
