"""One server for the tests of this folder that do not kill it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.flows.world import World, make_world

if TYPE_CHECKING:
    from tests.deployments.team import Team


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Team"]:
    """A server, and a worker for each pool of the recipe `tiny`, which is deployed; nothing was run."""
    from tests.deployments.team import a_team  # the unit lane, which looks here too, imports no Prefect

    world: World = make_world(tmp_path_factory.mktemp("team") / "world")
    with a_team(world) as here:
        here.deploy()
        for pool in ("cpu", "gpu"):
            here.start_worker(pool)
        yield here
