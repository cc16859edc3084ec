"""One tiny world, made once: those who only read share it, those who write copy it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.commands import Api, served
from tests.flows.made import make_corpora
from tests.flows.world import World, make_world


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Data, a model and a recipe; nothing was run. To be read only."""
    return make_world(tmp_path_factory.mktemp("given") / "world")


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose corpora stand, trainings not yet. To be read only."""
    world = make_world(tmp_path_factory.mktemp("corpora") / "world")
    make_corpora(world.resolve())
    return world


@pytest.fixture
def world(given: World, tmp_path: Path) -> World:
    """A fresh world of one's own."""
    return World(shutil.copytree(given.folder, tmp_path / "world"))


@pytest.fixture
def standing(corpora: World, tmp_path: Path) -> World:
    """A world of one's own whose corpora stand."""
    return World(shutil.copytree(corpora.folder, tmp_path / "world"))


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One Prefect server for all tests that are not about the server: named to them by PREFECT_API_URL."""
    with served(World(tmp_path_factory.mktemp("server"))) as server:
        yield server
