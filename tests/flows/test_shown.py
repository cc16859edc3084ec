"""What a run leaves for a browser: names, tags, progress that moved, tables with the numbers of `--json`."""

import contextlib
import json
import logging
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.flows.commands import Api, Done, await_that, dapt
from tests.flows.world import World

pytestmark = pytest.mark.flow


@dataclass(frozen=True)
class Shown:
    """A corpus run whose dedup took its time, and the server that watched it."""

    api: Api
    done: Done


@pytest.fixture(scope="module")
def shown(given: World, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    world = World(shutil.copytree(given.folder, tmp_path_factory.mktemp("shown") / "world"))
    words = ["run", "recipe.toml", "--set", "name=shown", "--until", "corpus", "--json"]
    done = dapt(world, *words, PREFECT_API_URL=api.url, SLOW="dedup 1.5")
    assert done.code == 0, done.err
    return Shown(api, done)


def test_each_stage_has_progress_that_moved_and_ended_whole(shown: Shown) -> None:
    found = shown.api.artifacts("domain corpus of shown")
    for stage in ("download", "filtering", "signatures", "dedup", "tokenization", "packing"):
        (artifact,) = found[f"shown-{stage}"]
        assert artifact["type"] == "progress"
        assert artifact["data"] == 100
    (dedup,) = found["shown-dedup"]
    values = [state["data"] for state in shown.api.history(dedup["id"]) if "data" in state]
    assert values == sorted(values)
    assert len(set(values)) >= 2, "three shards, one and a half seconds each"
    used = shown.done.told["stages"]["dedup"]["documents_out"]
    counted = re.fullmatch(r"(\d) of \1 shards, (\d+) documents, [\d.]+ MB/s", dedup["description"])
    assert counted
    assert int(counted[2]) >= used, "shards made beyond the budget count too"
    (general,) = shown.api.artifacts("general corpus of shown")["shown-general-dedup"]
    assert general["data"] == 100


@pytest.mark.parametrize("corpus", ["domain", "general"])
def test_the_funnel_has_the_numbers_of_the_run_s_json(shown: Shown, corpus: str) -> None:
    prefix = "" if corpus == "domain" else "general-"
    (table,) = shown.api.artifacts(f"{corpus} corpus of shown")[f"shown-{prefix}funnel"]
    rows = json.loads(table["data"])
    told = {name: tally for name, tally in shown.done.told["stages"].items() if name != "corpus"}
    names = [name for name in told if name.startswith("general:") == (corpus == "general")]
    assert [row["stage"] for row in rows] == [name.removeprefix("general:") for name in names]
    for row, name in zip(rows, names, strict=True):
        tally = told[name]
        assert row["documents in"] == tally["documents_in"] > 0
        assert row["documents out"] == tally["documents_out"]
        assert row["tokens"] == tally["tokens"]
        assert row["dropped"] == sum(tally["dropped"].values())
        assert all(f"{reason} {count}" in row["why"] for reason, count in tally["dropped"].items() if count)
    assert sum(row["dropped"] for row in rows) > 0


def test_every_run_has_a_readable_name_and_the_tags_it_is_found_by(shown: Shown) -> None:
    runs = shown.api.task_runs("domain corpus of shown")
    names = {run["name"] for run in runs}
    assert {"dedup shard 00000", "packing shard 00001", "corpus 11K"} <= names
    for run in runs:
        assert {"dapt", "recipe:shown"} < set(run["tags"])
        assert any(tag.startswith("stage:") for tag in run["tags"])
    names = ["adapt shown", "domain corpus of shown", "general corpus of shown"]
    found = shown.api.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": names}}})
    assert len(found) == 3
    assert all({"dapt", "recipe:shown"} <= set(run["tags"]) for run in found)


@contextlib.contextmanager
def forwarded(port: int, url: str) -> Iterator[None]:
    """A port that leads to a server, for a while."""
    there = urlsplit(url)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                far = socket.create_connection((str(there.hostname), int(there.port or 80)))
                ends.extend([here, far])
                for pair in ((here, far), (far, here)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    ends: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(10)
        for end in ends:
            end.close()


def test_a_server_that_is_away_for_a_while_delays_nobody_and_gets_the_last_state(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect import settings
    from prefect.events.worker import EventsWorker

    from flows.artifacts import Artifacts

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = api.ask("flows/", {"name": "away"})["id"]
    run = api.ask("flow_runs/", {"flow_id": run, "name": "away", "state": {"type": "RUNNING"}})["id"]
    made = Artifacts("away", uuid.UUID(run))

    def send() -> None:
        here = {
            settings.PREFECT_API_URL: f"http://127.0.0.1:{port}/api",
            settings.PREFECT_CLIENT_CUSTOM_HEADERS: {"Host": urlsplit(api.url).netloc},  # it answers no other
        }
        with settings.temporary_settings(here):
            made.send_until_ended()

    sender = threading.Thread(target=send)
    sender.start()
    began = time.monotonic()
    for done in range(100):
        made.progress("work", done=done, total=100, description=f"{done} done")
    assert time.monotonic() - began < 1, "whoever computes waits for no server"
    await_that(lambda: [r for r in caplog.records if r.name == "flows.artifacts"], "it is told", 60)
    with forwarded(port, api.url):
        await_that(lambda: api.artifacts("away"), "it arrives when the server is back", 60)
        made.progress("work", done=100, total=100, description="all done")
        made.end()
        sender.join(60)
        EventsWorker.drain_all(timeout=10)  # else they look for the server after it is gone
    (artifact,) = api.artifacts("away")["away-work"]
    assert (artifact["data"], artifact["description"]) == (100, "all done")
    told = [r for r in caplog.records if r.name == "flows.artifacts"]
    assert [r.levelno for r in told] == [logging.WARNING]
