"""One server for the tests of this folder that do not kill it."""

from collections.abc import Iterator

import pytest

from tests.deployments.team import Team, a_team
from tests.flows.world import World, make_world


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A server, and a worker for each pool of the recipe `tiny`, which is deployed; nothing was run."""
    world: World = make_world(tmp_path_factory.mktemp("team") / "world")
    with a_team(world) as here:
        here.deploy()
        for pool in ("cpu", "gpu"):
            here.start_worker(pool)
        yield here
