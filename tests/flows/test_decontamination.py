"""A recipe that decontaminates, end to end: what a benchmark asks is not trained on, and commands say so."""

import json
import shutil
from dataclasses import dataclass

import pytest

from tests.evaluation.hub_folders import piqa
from tests.flows.commands import Api, Done, dapt
from tests.flows.world import World, prose
from tests.hub_server import hub_of

pytestmark = [pytest.mark.train, pytest.mark.flow]

LOOK = [
    word
    for field in ("name=looked", "evaluation.benchmarks=['piqa']", "dedup.decontaminate=drop")
    for word in ("--set", field)
]
IN_DOMAIN, IN_GENERAL = 1001, 9001
"""Documents of the world, both of their first shard."""


def item(number: int, goal: str) -> dict[str, str | int]:
    """A question whose right answer stands in a document, in other case and without punctuation."""
    words = prose(number).lower().replace(".", "").split()
    return {"goal": goal, "sol1": "do nothing", "sol2": " ".join(words[20:40]).upper(), "label": 1}


@dataclass(frozen=True)
class Looked:
    """What commands said of a world whose corpora stood before anybody looked for benchmarks."""

    run: Done
    funnel: str
    """Why documents went, on the server."""
    shown: Done
    planned: Done


@pytest.fixture(scope="module")
def looked(corpora: World, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Looked:
    folder = tmp_path_factory.mktemp("looked")
    world = World(shutil.copytree(corpora.folder, folder / "world"))
    items = [item(IN_DOMAIN, "which way?"), item(IN_GENERAL, "how far?"), item(77, "when?")]
    with hub_of(piqa(folder / "hub", items)) as hub:
        env = {"PREFECT_API_URL": api.url, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
        run = dapt(world, "run", "recipe.toml", *LOOK, "--until", "corpus", "--json", **env)
    shown = dapt(world, "show", "recipe.toml", "dropped", "--reason", "contaminated", *LOOK, "--json")
    (funnel,) = api.artifacts("domain corpus of looked")["looked-funnel"]
    why = {row["stage"]: row["why"] for row in json.loads(funnel["data"])}
    return Looked(run, why["dedup"], shown, dapt(world, "plan", "recipe.toml", *LOOK, "--json"))


def test_the_planted_document_goes_counted_by_benchmark(looked: Looked) -> None:
    assert looked.run.code == 0, looked.run.err
    dedup = looked.run.told["stages"]["dedup"]
    assert dedup["dropped"]["contaminated"] == 1
    assert dedup["contaminated"] == {"piqa": 1}
    assert "contaminated (piqa) 1" in looked.funnel
    assert dedup["documents_in"] == dedup["documents_out"] + sum(dedup["dropped"].values())
    general = looked.run.told["stages"]["general:dedup"]
    assert "contaminated" not in general
    assert general["computed"] == 0, "general text is not trained on, so it is not looked at"
    assert looked.run.told["stages"]["download"]["computed"] == 0


def test_what_was_dropped_is_shown_with_the_item_it_holds(looked: Looked) -> None:
    (document,) = looked.shown.told["dropped"]
    assert document["contaminated_by"] == "piqa:0"
    assert (document["stage"], document["shard"]) == ("dedup", "00000")
    assert document["text"].startswith(prose(IN_DOMAIN)[:40])


def test_another_run_finds_everything_standing(looked: Looked) -> None:
    stages = ("benchmarks", "contamination", "dedup", "corpus")
    nodes = [node for node in looked.planned.told["nodes"] if node["stage"] in stages]
    assert {node["stage"] for node in nodes} == set(stages)
    assert {node["state"] for node in nodes} == {"HIT"}


def test_nothing_to_look_for_is_a_mistake_of_the_recipe(given: World) -> None:
    done = dapt(given, "plan", "recipe.toml", "--set", "dedup.decontaminate=drop")
    assert done.code == 2
    assert "evaluation.benchmarks is empty" in done.err
