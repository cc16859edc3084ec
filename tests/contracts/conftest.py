"""What the promise tests share: sources, a base, one Prefect server, and stores that nobody changes."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tasks.store.json import JSON
from tests.contracts.sources import make_documents, write_base, write_sources
from tests.contracts.world import LARGE, SMALL, Done, World, corpus_shards, snapshot

NUM_DOCUMENTS = 480


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return make_documents(NUM_DOCUMENTS)


@pytest.fixture(scope="session")
def offline_world(tmp_path_factory: pytest.TempPathFactory, documents: list[str]) -> World:
    """Where nothing but plans is asked for, or a server of one's own."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "base").mkdir()
    sources = write_sources(folder / "sources", documents)
    return World(folder, sources, write_base(folder / "base", documents[:100]))


@pytest.fixture(scope="session")
def world(offline_world: World) -> Iterator[World]:
    """With one Prefect server for all runs here: a start costs more than they do."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    from flows.server import local_server

    apart, until_the_end = copy_context(), ExitStack()  # other folders' tests see nothing of this server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the server outlives the object that started it
        url = apart.run(until_the_end.enter_context, local_server(offline_world.folder / "server"))
    yield replace(offline_world, server=f"{url}/api")
    EventsWorker.drain_all(timeout=10)  # else they try for a minute to reach the server that is gone
    APILogWorker.drain_all(timeout=10)
    apart.run(until_the_end.close)


@dataclass(frozen=True, slots=True)
class Grown:
    """A store after the small budget, then after the large one as well."""

    store: Path
    recipe: Path
    """With both budgets."""
    small: Done
    small_snapshot: dict[str, str]
    plan: JSON
    """Of the growth, before it ran."""
    large: Done


@pytest.fixture(scope="session")
def grown(world: World) -> Grown:
    """Made once; whoever reads it leaves it as it is."""
    store = world.folder / "grown"
    small = world.run(store, world.recipe("grown", budgets=[SMALL]))
    before = snapshot(store)
    recipe = world.recipe("grown", budgets=[SMALL, LARGE])
    plan = world.plan(store, recipe)
    return Grown(store, recipe, small, before, plan, world.run(store, recipe))


@dataclass(frozen=True, slots=True)
class Scratch:
    """The large budget alone in an empty store: another name, one worker, the files in another folder."""

    store: Path
    large: Done

    @property
    def packed(self) -> list[str]:
        """Paths of the packed shards in use."""
        return [shard["path"] for shard in corpus_shards(self.large.body["milestones"][0])]


@pytest.fixture(scope="session")
def scratch(world: World) -> Scratch:
    """Made once; whoever reads it leaves it as it is."""
    store = world.folder / "scratch"
    moved = shutil.copytree(world.sources, world.folder / "moved", copy_function=shutil.copyfile)
    recipe = world.recipe("scratch", budgets=[LARGE], download={"files": [str(moved / "part-*")]})
    return Scratch(store, world.run(store, recipe, DAPT_WORKERS="1"))
