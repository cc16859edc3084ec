"""Promise: a broken file fails its own shard, by name; none behind it is skipped, only it is made again."""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contracts.conftest import Scratch
from tests.contracts.world import LARGE, Done, World, corpus_rows, manifests, nodes_of, snapshot

pytestmark = pytest.mark.flow

BROKEN = "part-2.parquet"
DEDUPED = ("dedup", "tokenization", "packing")


@dataclass(frozen=True, slots=True)
class Retry:
    """A store that met a broken file."""

    world: World
    store: Path
    recipe: Path
    done: Done
    before: dict[str, str]


@pytest.fixture(scope="module")
def retry(world: World) -> Retry:
    sources = shutil.copytree(world.sources, world.folder / "broken")
    (sources / BROKEN).write_bytes((sources / BROKEN).read_bytes()[:9000])
    here = replace(world, sources=sources)
    store, recipe = world.folder / "retry", here.recipe("retry", budgets=[LARGE])
    done = here.call(store, "run", recipe, "--until", "corpus")
    return Retry(here, store, recipe, done, snapshot(store))


def test_the_run_ends_with_1_and_names_the_file(retry: Retry) -> None:
    assert retry.done.code == 1
    assert BROKEN in retry.done.stderr
    [failed] = retry.done.body["failed"]
    assert (failed["stage"], failed["shard"]) == ("download", "00004")
    assert BROKEN in failed["error"]
    assert retry.done.body["stages"]["download"]["failed"] == 1
    assert retry.done.body["milestones"] == []


def test_the_shards_behind_it_are_fetched_filtered_and_signed_and_wait(retry: Retry) -> None:
    counts = {stage: len(snapshot(retry.store, stage)) for stage in ("download", "filtering", "signatures")}
    assert len(set(counts.values())) == 1
    assert counts["download"] > 4
    assert {len(snapshot(retry.store, stage)) for stage in DEDUPED} == {4}
    waiting = sum(tally["waiting"] for tally in retry.done.body["stages"].values())
    assert waiting == counts["download"] - 4


def test_status_lists_it_first_with_its_error(retry: Retry) -> None:
    status = retry.world.call(retry.store, "status", retry.recipe)
    assert status.code == 0
    [failed] = status.body["failed"]
    assert failed["stage"] == "download"
    assert BROKEN in failed["error"]
    assert Path(failed["path"]).exists()
    assert {entry["stage"] for entry in status.body["waiting"]} >= set(DEDUPED)


def test_the_plan_tells_that_it_failed_before(retry: Retry) -> None:
    node = nodes_of(retry.world.plan(retry.store, retry.recipe))["download", "00004"]
    assert node["state"] == "MISS"
    assert node["reason"].startswith("failed before: ")
    assert BROKEN in node["reason"]


def test_run_again_it_fails_alone_again(retry: Retry) -> None:
    again = retry.world.call(retry.store, "run", retry.recipe, "--until", "corpus")
    assert (again.code, again.computed) == (1, {})
    assert len(again.body["failed"]) == 1
    assert snapshot(retry.store) == retry.before


def test_replaced_by_a_good_one_only_it_and_those_that_waited_are_made(
    world: World, retry: Retry, scratch: Scratch
) -> None:
    fetched = set(manifests(retry.store, "download"))
    shutil.copyfile(world.sources / BROKEN, retry.world.sources / BROKEN)
    done = retry.world.run(retry.store, retry.recipe)
    assert retry.before.items() <= snapshot(retry.store).items()
    digest = hashlib.sha256((world.sources / BROKEN).read_bytes()).hexdigest()
    its_own = {
        path
        for path, manifest in manifests(scratch.store, "download").items()
        if manifest["inputs"]["file-00000"].startswith(digest)
    }
    assert manifests(retry.store, "download").keys() - fetched == its_own
    assert done.body["stages"]["packing"]["hit"] == 4
    expected = corpus_rows(scratch.store, scratch.large.body["milestones"][0])
    assert corpus_rows(retry.store, done.body["milestones"][0]).equals(expected)
    status = retry.world.call(retry.store, "status", retry.recipe).body
    assert (status["failed"], status["waiting"]) == ([], [])


def test_left_out_on_purpose_the_rest_goes_on(retry: Retry, tmp_path: Path) -> None:
    sources = shutil.copytree(retry.world.sources, tmp_path / "sources")
    (sources / BROKEN).write_bytes((sources / BROKEN).read_bytes()[:9000])
    here = replace(retry.world, sources=sources)
    recipe = here.recipe("excluded", budgets=[34_000], download={"exclude": ["part-2*"]})
    done = here.run(retry.store, recipe)
    assert "download" not in done.computed
    assert done.body["stages"]["download"]["hit"] > 4, "shards behind the file that is left out are in use"
