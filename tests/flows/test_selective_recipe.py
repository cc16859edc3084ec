"""A recipe that selects tokens by a reference model: its losses are nodes beside the packed shards."""

import shutil
from pathlib import Path

import pytest

from flows.chain import DOMAIN
from flows.outcome import nodes_of, walks_of
from flows.plan import make_plan
from flows.recipe import load_recipe
from tasks.store.errors import RecipeError
from tests.flows.world import LENGTH, World


def reference(world: World, name: str, weights: bytes = b"weights") -> Path:
    """The world's model with a file that counts as weights: nothing here loads them."""
    folder = Path(shutil.copytree(world.folder / "model", world.folder / name))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_reference_must_be_named(given: World) -> None:
    with pytest.raises(RecipeError, match=r"training\.selective\.reference is missing"):
        load_recipe(given.recipe, ["training.selective.fraction=0.5"])


def test_a_reference_without_weights_is_refused(given: World) -> None:
    with pytest.raises(RecipeError, match=r"training\.selective\.reference: .*has no weights"):
        given.resolve("training.selective.reference=./model")


def test_its_losses_are_planned_a_node_a_shard_and_known_by_its_files(standing: World) -> None:
    reference(standing, "judge")
    resolved = standing.resolve("training.selective.reference=./judge")
    plan = make_plan(resolved)
    nodes = nodes_of(resolved, walks_of(resolved))
    losses = [node.fingerprint for node in nodes["reference_loss"]]
    assert [node.inputs["packing"] for node in nodes["reference_loss"]] == [
        node.fingerprint for node in nodes["packing"]
    ]
    told = [node for node in plan["nodes"] if node["stage"] == "reference_loss"]
    assert [(node["fingerprint"], node["state"]) for node in told] == [(found, "MISS") for found in losses]
    largest = nodes["training"][-1]
    assert [value for name, value in largest.inputs.items() if name.startswith("reference_loss")] == losses
    plain, totals = make_plan(standing.resolve())["totals"], plan["totals"]
    packed = sum(walks_of(resolved)[DOMAIN].amounts) * LENGTH
    assert totals["disk_bytes"] == plain["disk_bytes"] + 3 * packed, "a token whose loss is kept"
    assert totals["seconds"] > plain["seconds"]

    reference(standing, "same")
    reference(standing, "other", b"other weights")
    found = {}
    for name, mask in (("same", "false"), ("other", "false"), ("same", "true")):
        other = standing.resolve(f"training.selective.reference=./{name}", f"training.document_mask={mask}")
        found[name, mask] = nodes_of(other, walks_of(other))["reference_loss"][0].fingerprint
    assert found["same", "false"] == losses[0]
    assert len({*found.values()}) == 3


def test_without_one_nothing_of_it_is_planned(standing: World) -> None:
    resolved = standing.resolve()
    assert "reference_loss" not in nodes_of(resolved, walks_of(resolved))
    assert all(node["stage"] != "reference_loss" for node in make_plan(resolved)["nodes"])
