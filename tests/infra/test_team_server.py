"""The settings of infra/compose.yaml at work: Postgres, Redis, password, CSRF, a worker, and no secret told.

A recipe's source is on a Hub that demands a token and hands out signed addresses. `dapt run` has the token
in its environment and meets two files that are refused, in words that repeat the token and a signed address;
then a run on the worker, which has none, takes it from a Secret block and ends well.
"""

import base64
import contextlib
import gzip
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import settings
from prefect.blocks.system import Secret

from tests.flows.commands import DAPT, Done, await_that
from tests.flows.world import World, make_world
from tests.hub_server import HubServer
from tests.infra.team import Team, programs, team_server
from tests.leaks import leaked, leaks

MISSING = (
    "Postgres, Redis or prefect-redis is not installed: apt-get install postgresql redis-server, "
    "pip install -e '.[dev]'"
)
pytestmark = [pytest.mark.flow, pytest.mark.skipif(not programs(), reason=MISSING)]

USER, PASSWORD = "admin", "planted-auth-1f6b"
TOKEN, SIGNATURE = "hf_planted9cTWd2QkmX", "planted5ea1ed"
GIVEN = {
    "PREFECT_AUTH_STRING": f"{USER}:{PASSWORD}",
    "POSTGRES_PASSWORD": "planted-postgres-77c0",
    "REDIS_PASSWORD": "planted-redis-03de",
}
AWS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED0000", "AWS_SECRET_ACCESS_KEY": "planted/aws+secret9"}
SECRETS = [TOKEN, SIGNATURE, PASSWORD, GIVEN["POSTGRES_PASSWORD"], GIVEN["REDIS_PASSWORD"], *AWS.values()]
SECRETS += [base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()]
WORDS = ["--set", 'budget.milestones=["5K"]']


@dataclass(frozen=True)
class Story:
    """What came of both runs."""

    team: Team
    world: World
    hub: HubServer
    failed: Done
    run: dict[str, Any]
    """The worker's flow run, as the server tells it."""


def ask(team: Team, path: str, body: dict[str, Any] | None = None, *, verb: str = "POST") -> Any:
    """The server, with password and CSRF token."""
    client, auth = "tests", (USER, PASSWORD)
    token = httpx.get(f"{team.url}/csrf-token", params={"client": client}, auth=auth, timeout=60).json()
    headers = {"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token["token"]}
    answer = httpx.request(
        verb, f"{team.url}/{path}", json=body, auth=auth, headers=headers, timeout=60
    ).raise_for_status()
    return answer.json() if answer.content else None


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("team")
    world = make_world(folder / "world")
    texts = sorted((world.folder / "domain").iterdir())
    files = {f"{path.name}.gz": gzip.compress(path.read_bytes(), mtime=0) for path in texts}
    text = world.recipe.read_text().replace('files = ["domain/*.jsonl"]', 'dataset = "planted/domain"')
    world.recipe.write_text(text)
    with (
        HubServer(token=TOKEN, signature=SIGNATURE) as hub,
        team_server(folder, GIVEN) as team,
    ):
        hub.publish("planted/domain", files)
        team.serve("cpu-worker", HF_ENDPOINT=hub.url, PREFECT_WORKER_WEBSERVER_PORT=str(team.ports["worker"]))
        hub.withheld = ["/0.jsonl.gz", hub.digest("1.jsonl.gz")]
        env = team.environment("cpu-worker", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN, **AWS, DAPT_WORKERS="4")
        failed = dapt(world, "run", "recipe.toml", "--until", "corpus", *WORDS, env=env)
        hub.withheld = []
        run = run_on_worker(team, world)
        yield Story(team, world, hub, failed, run)


def dapt(world: World, *words: str, env: dict[str, str]) -> Done:
    done = subprocess.run(
        [*DAPT, *words], cwd=world.folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_on_worker(team: Team, world: World) -> dict[str, Any]:
    """Save the token as a block, deploy the recipe, run it on the worker's pool to its end."""
    here = {settings.PREFECT_API_URL: team.url, settings.PREFECT_API_AUTH_STRING: f"{USER}:{PASSWORD}"}
    with settings.temporary_settings(here):
        Secret(value=TOKEN).save("hf-token")
    team.await_address("cpu-worker", f"http://127.0.0.1:{team.ports['worker']}/health")
    deployed = dapt(world, "deploy", "recipe.toml", *WORDS, "--json", env=team.environment("cpu-worker"))
    assert deployed.code == 0, deployed.err
    deployment = ask(team, "deployments/name/adapt/tiny", verb="GET")["id"]
    run = ask(team, f"deployments/{deployment}/create_flow_run", {"parameters": {"until": "corpus"}})
    deadline = time.monotonic() + 240
    while run["state_type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        assert time.monotonic() < deadline, team.log("cpu-worker")
        time.sleep(0.5)
        run = ask(team, f"flow_runs/{run['id']}", verb="GET")
    return dict(run)


def test_the_run_on_the_worker_ends_well_with_the_token_of_the_secret_block(story: Story) -> None:
    assert story.run["state_type"] == "COMPLETED", story.team.log("cpu-worker")
    assert len(list(story.team.store.glob("corpus/*/*/manifest.json"))) == 1
    assert "HF_TOKEN" not in story.team.environment("cpu-worker")


def test_every_task_run_is_in_postgres_as_it_ended(story: Story) -> None:
    stages = ("download", "filtering", "signatures", "dedup", "tokenization", "packing", "corpus")
    stand = {stage: len(list(story.team.store.glob(f"{stage}/*/*/manifest.json"))) for stage in stages}
    found = "select count(distinct name) from task_run where state_name = 'Completed' and name like '{} %'"

    def recorded() -> dict[str, int]:
        return {stage: int(story.team.query(found.format(stage))[0][0]) for stage in stages}

    await_that(lambda: recorded() == stand, "the recorder, which comes after the run, has written all")
    assert all(stand.values())
    assert story.team.query("select distinct state_name from task_run order by 1") == [
        ["Completed"],
        ["Failed"],
    ]
    failed = "select name from task_run where state_name = 'Failed' and name like '%shard%' order by name"
    assert story.team.query(failed) == [["download shard 00000"], ["download shard 00001"]]


def test_the_schedule_s_next_runs_are_on_the_server(story: Story) -> None:
    """With an SQLAlchemy that Prefect does not know its scheduler dies, in its log alone."""
    scheduled = "select count(*) from flow_run where auto_scheduled and state_type = 'SCHEDULED'"
    await_that(lambda: int(story.team.query(scheduled)[0][0]) > 0, "the scheduler has looked")


def test_who_has_no_password_or_no_csrf_token_is_refused(story: Story) -> None:
    url, auth = story.team.url, (USER, PASSWORD)
    assert httpx.get(f"{url}/flows/{'0' * 32}", timeout=60).status_code == 401
    assert httpx.get(f"{url}/csrf-token?client=a", timeout=60).status_code == 401
    assert httpx.get(f"{url}/csrf-token?client=a", auth=(USER, "guessed"), timeout=60).status_code == 401
    unasked = httpx.post(f"{url}/flows/filter", json={}, auth=auth, timeout=60)
    assert (unasked.status_code, unasked.json()) == (403, {"detail": "Missing CSRF token."})
    forged = {"Prefect-Csrf-Client": "a", "Prefect-Csrf-Token": "guessed"}
    answer = httpx.post(f"{url}/flows/filter", json={}, auth=auth, headers=forged, timeout=60)
    assert (answer.status_code, answer.json()["detail"]) == (403, "Invalid CSRF token or client identifier.")
    assert httpx.get(f"{url}/health", timeout=60).status_code == 200


def test_a_browser_lets_no_other_origin_read_an_answer(story: Story) -> None:
    for origin, allowed in (("http://evil.example", None), (story.team.url.removesuffix("/api"), "itself")):
        headers = {"Origin": origin}
        answer = httpx.get(f"{story.team.url}/csrf-token?client=a", headers=headers, auth=(USER, PASSWORD))
        told = answer.headers.get("access-control-allow-origin")
        assert told == (origin if allowed else None)


def test_all_listen_on_loopback_alone(story: Story) -> None:
    found = {name: listening(process.pid) for name, process in story.team.processes.items()}
    assert {name for name, places in found.items() if places} >= {"postgres", "redis", "server", "cpu-worker"}
    assert {place for places in found.values() for place in places} == {"0100007F"}


def listening(leader: int) -> set[str]:
    """Addresses at which a process group listens, as the kernel writes them: 0100007F is 127.0.0.1."""
    inodes = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.getpgid(int(entry.name)) == leader:
                    inodes |= {str(fd.readlink()) for fd in (entry / "fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in inodes:
                found.add(local.partition(":")[0])
    return found


def test_no_error_is_in_the_log_of_the_server_s_processes(story: Story) -> None:
    for name in ("server", "services"):
        assert "Traceback" not in story.team.log(name)


def test_the_failing_run_tells_what_was_refused_without_the_secrets(story: Story) -> None:
    assert story.failed.code == 1
    assert "2 shards failed" in story.failed.err
    assert "Bearer *** may not read this" in story.failed.err, "the Hub's own words, less the token"
    assert "X-Amz-Signature=***" in story.failed.err, "the signed address, less its signature"
    told = f"{story.failed.out}{story.failed.err}"
    assert leaked(told, SECRETS) == []


def test_the_secrets_were_used(story: Story) -> None:
    """Else the tests of their absence show nothing."""
    asked = "\n".join(one.what for one in story.hub.asked)
    assert f"X-Amz-Signature={SIGNATURE}" in asked
    assert story.team.query("select count(*) from block_document where name = 'hf-token'") == [["1"]]
    failures = [json.loads(path.read_text()) for path in story.team.store.glob("failures/download/*.json")]
    assert failures == [], "made good by the second run"
    told = story.team.query("select message from log where name = 'flows.secrets'")
    assert told == [["HF_TOKEN is taken from the Secret block hf-token"]]
    states = "\n".join(row[0] for row in story.team.query("select message from task_run_state"))
    assert "may not read this" in states
    assert "may not read this" in story.team.dump()


def test_no_secret_is_in_the_server_s_database_but_in_its_table_of_blocks(story: Story) -> None:
    rows = story.team.dump()
    assert "planted/domain" in rows
    assert leaked(rows, SECRETS) == []


def test_no_secret_is_in_redis(story: Story) -> None:
    found = Path(shutil.which("redis-cli") or "")
    env = {"REDISCLI_AUTH": GIVEN["REDIS_PASSWORD"]}
    words = [str(found), "-p", str(story.team.ports["redis"]), "save"]
    assert subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout == "OK\n"
    content = (story.team.folder / "dump.rdb").read_bytes()
    assert b"prefect" in content
    assert leaked(content.decode("latin-1"), SECRETS) == []


def test_no_secret_is_in_any_file_of_the_runs(story: Story) -> None:
    """The store (manifests, failures, locks, Parquet), Prefect's homes, output of all processes, caches."""
    assert {"data.parquet", "manifest.json"} <= {path.name for path in story.team.store.rglob("*")}
    assert (story.team.folder / "home" / "cpu-worker").is_dir()
    assert leaks(story.team.folder, SECRETS) == []
