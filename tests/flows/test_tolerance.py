"""The recipe's tolerance: what it may name, that it is no identity, and what is judged from what stands."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows.chain import DOMAIN
from flows.forgetting import doubts, forgotten, losses_of
from flows.inspect import status
from flows.milestones import (
    all_units,
    base_model,
    corpus_nodes,
    milestone_models,
)
from flows.outcome import nodes_of, walks_of
from flows.overlap import overlaps
from flows.plan import make_plan
from flows.recipe import Recipe, load_recipe
from flows.resolve import Resolved
from flows.stability import stability
from tasks.evaluation.tables import BENCHMARK_ITEMS, HELD_OUT_ITEMS
from tasks.report.facts import MilestoneFacts, Overlap
from tasks.store.errors import RecipeError
from tasks.store.shard import NodeWriter, build_node
from tests.flows.world import World

BENCHMARK = "evaluation.benchmarks=['boolq']"
EVAL_AT = "training.eval_at=[0, 0.1, 0.5, 1]"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["evaluation.tolerance.genral=0.01"],
            "evaluation.tolerance.genral: no such benchmark or slice is measured; add it to "
            "evaluation.benchmarks, or leave it out (measured: domain, general)",
        ),
        (
            ["evaluation.tolerance.boolq=0.01"],
            "evaluation.tolerance.boolq: no such benchmark or slice is measured; add it to "
            "evaluation.benchmarks, or leave it out (measured: domain, general)",
        ),
        (
            ["evaluation.tolerance.domain=0.01", "held_out.fraction=0"],
            "evaluation.tolerance.domain: held_out.fraction is 0, so no slice is measured; raise it, or "
            "leave this out (measured: nothing)",
        ),
        (
            ["evaluation.tolerance.general=-0.01"],
            "evaluation.tolerance.general: -0.01 is no loss; expected 0 or more, and 0 allows none",
        ),
        (
            ["evaluation.tolerance.general=much"],
            "evaluation.tolerance.general: input should be a valid number",
        ),
        (
            ["evaluation.tolerance.general=inf"],
            "evaluation.tolerance.general: input should be a finite number",
        ),
        (["evaluation.tolerance=0.01"], "evaluation.tolerance: expected a section of its own (found 0.01)"),
        (
            [BENCHMARK, "evaluation.tolerance.boolq=2"],
            "evaluation.tolerance.boolq is 2, and no accuracy can fall by so much; two points are 0.02",
        ),
        (
            ["training.eval_at=[0, 1]", "held_out.fraction=0"],
            "training.eval_at is [0.0, 1.0], and no held-out slice is measured: set held_out.fraction, or "
            "leave eval_at out",
        ),
        (["training.eval_at=0.5"], "training.eval_at: expected a list: [...] (found 0.5)"),
        (
            ["training.eval_at=[0.5, 1]"],
            "training: eval_at=[0.5, 1.0]: expected fractions of the steps, growing from 0 (what training "
            "starts from) to 1 (the final model), such as [0, 0.01, 0.05, 0.2, 1]",
        ),
    ],
)
def test_what_is_not_measured_or_no_loss_is_refused(given: World, overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(given.recipe, overrides)
    (line,) = str(caught.value).splitlines()
    assert line.removeprefix(f"{given.recipe}: ").startswith(said)


def test_a_general_tolerance_needs_a_general_corpus(given: World) -> None:
    told = load_recipe(given.recipe).model_dump(mode="json") | {"general": None}
    told["evaluation"]["tolerance"] = {"general": 0.01}
    with pytest.raises(
        ValueError, match="there is no general corpus to measure; add \\[general\\], or leave"
    ):
        Recipe.model_validate(told)


def test_adopted_tokens_have_no_domain_slice_to_tolerate() -> None:
    told = {"name": "a", "budget": {"milestones": ["1M"]}, "download": {"adopted": "b"}}
    evaluation = {"tolerance": {"domain": 0.1}}
    training = {"base_model": "/m", "global_batch_sequences": 4}
    with pytest.raises(ValueError, match="adopted tokens have no text to measure; leave it out"):
        Recipe.model_validate(told | {"evaluation": evaluation, "training": training})


def test_a_tolerance_changes_no_node_but_the_report_that_tells_it(corpora: World) -> None:
    before, after = (
        {stage: [node.path for node in nodes] for stage, nodes in nodes_of(r, walks_of(r)).items()}
        for r in (corpora.resolve(), corpora.resolve("evaluation.tolerance.general=0.01"))
    )
    assert before.pop("report") != after.pop("report")
    assert before == after


def test_evaluating_on_the_way_trains_anew_and_measures_each_slice_at_each_step(corpora: World) -> None:
    plain, asked = corpora.resolve(), corpora.resolve(EVAL_AT)
    before, after = (nodes_of(r, walks_of(r)) for r in (plain, asked))
    for stage in ("packing", "corpus", "base"):
        assert before[stage] == after[stage]
    assert not {n.path for n in before["training"]} & {n.path for n in after["training"]}
    assert len(after["evaluation"]) == len(before["evaluation"]) + 2 * 2 * 2, "milestones, slices, steps"
    assert len({node.fingerprint for node in after["evaluation"]}) == len(after["evaluation"])
    places = {n.reads["model"].get("inside", "") for n in after["evaluation"]}
    assert places == {"", "at/step-000002", "at/step-000010", "at/step-000005", "at/step-000022"}
    told = make_plan(asked)
    named = [n["shard"] for n in told["nodes"] if n["stage"] == "evaluation"]
    assert "11K bits_per_byte.general at step 5" in named
    assert len(named) == len(after["evaluation"])
    kept = told["totals"]["disk_bytes"] - make_plan(plain)["totals"]["disk_bytes"]
    assert kept == 2 * 2 * 8 * told["memory"]["parameters"], "two milestones, two steps each"


def test_a_plan_tells_what_is_measured_on_the_way_before_its_corpora_stand(given: World) -> None:
    named = [n["shard"] for n in make_plan(given.resolve(EVAL_AT))["nodes"] if n["stage"] == "evaluation"]
    assert "5K bits_per_byte.domain at step 10" in named
    assert not [name for name in named if name.startswith("base ") and " at step " in name]


# what was measured, invented: the world's base costs BASE nats a byte, and its models as the test says
BASE, BYTES, DOCUMENTS = 2.0, 100, 40


def measured(
    resolved: Resolved, costs: Mapping[str, float], right: Mapping[str, float] | None = None
) -> None:
    """Let units stand: each document's nats a byte vary around `costs[label]`, of items a share is right."""
    walks = walks_of(resolved)
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    for model in [base_model(resolved), *milestone_models(resolved, walks, corpora)]:
        for name, unit in all_units(resolved, model, walks, corpora[0]).items():
            label = f"{model.label} {name}" if f"{model.label} {name}" in costs else model.label
            if name == "boolq":
                build = _benchmark((right or {}).get(model.label, 0.5))
            else:
                build = _held_out(costs.get(label, BASE))
            build_node(resolved.store, unit, build, room="tasks.evaluation", shard=name)


def _held_out(cost: float) -> Callable[[NodeWriter], None]:
    nats = cost * BYTES * np.linspace(0.8, 1.2, DOCUMENTS)

    def build(writer: NodeWriter) -> None:
        table = pa.table(
            {
                "id": [f"d{number}" for number in range(DOCUMENTS)],
                "bytes": [BYTES] * DOCUMENTS,
                "nats": nats,
                "tokens": [10] * DOCUMENTS,
            },
            schema=HELD_OUT_ITEMS,
        )
        with writer.parquet(HELD_OUT_ITEMS) as out:
            out.write_table(table)
        writer.details = {"bits_per_byte": float(nats.sum() / BYTES / DOCUMENTS / np.log(2))}

    return build


def _benchmark(share: float) -> Callable[[NodeWriter], None]:
    items, right = 400, int(400 * share)
    correct = [number < right for number in range(items)]

    def build(writer: NodeWriter) -> None:
        table = pa.table(
            {
                "benchmark": ["boolq"] * items,
                "doc_id": list(range(items)),
                "doc_hash": [str(number) for number in range(items)],
                "correct": correct,
                "correct_norm": pa.nulls(items, pa.bool_()),
                "chosen": [0] * items,
                "target": [0] * items,
                "log_likelihoods": [[0.0, -1.0]] * items,
            },
            schema=BENCHMARK_ITEMS,
        )
        with writer.parquet(BENCHMARK_ITEMS) as out:
            out.write_table(table)
        writer.details = {"score": share, "metric": "acc"}

    return build


@pytest.fixture
def own(corpora: World, tmp_path: Path) -> World:
    return World(shutil.copytree(corpora.folder, tmp_path / "world"))


def test_every_milestone_is_judged_on_what_has_a_tolerance(own: World) -> None:
    words = [BENCHMARK, "evaluation.tolerance.general=0.1", "evaluation.tolerance.boolq=0.05"]
    resolved = own.resolve(*words)
    measured(resolved, {"5K": 2.1, "11K": 2.6}, {"base": 0.6, "5K": 0.4, "11K": 0.58})
    losses = {(loss.milestone, loss.metric): loss for loss in losses_of(resolved)}
    assert set(losses) == {(m, name) for m in ("5K", "11K") for name in ("general", "boolq")}
    assert losses["5K", "general"].loss == pytest.approx(0.05)
    assert losses["11K", "general"].loss == pytest.approx(0.3)
    assert losses["11K", "general"].low == pytest.approx(0.3, abs=0.02)
    assert losses["5K", "boolq"].loss == pytest.approx(0.2)
    assert losses["5K", "boolq"].low < 0.2 < losses["5K", "boolq"].high
    assert {key for key, loss in losses.items() if loss.beyond} == {("11K", "general"), ("5K", "boolq")}

    failure = forgotten(list(losses.values()))
    assert failure is not None
    assert failure.exit_code == 4
    first, second, kept = str(failure).splitlines()
    assert first.startswith("forgot: boolq: accuracy went from 0.6000 to 0.4000 after 5K tokens")
    assert second.startswith("forgot: general: bits per byte went from ")
    assert "the model is kept" in kept
    told = status(resolved, on_server=False)["forgetting"]
    assert [(loss["milestone"], loss["metric"]) for loss in told] == [("5K", "boolq"), ("11K", "general")]


def test_a_loss_that_may_be_within_the_tolerance_is_let_pass_and_told(own: World) -> None:
    resolved = own.resolve(BENCHMARK, "evaluation.tolerance.boolq=0.05", "budget.milestones=['5K']")
    measured(resolved, {}, {"base": 0.6, "5K": 0.54})
    losses = losses_of(resolved)
    assert forgotten(losses) is None
    (said,) = doubts(resolved.recipe, losses)
    assert said.startswith("let pass, since its interval reaches what is allowed: boolq: accuracy went from")


def test_what_stays_the_same_or_gets_better_is_no_loss_however_small_the_tolerance(own: World) -> None:
    words = [f"evaluation.tolerance.{name}=0" for name in ("domain", "general")]
    resolved = own.resolve(*words)
    measured(resolved, {"5K": BASE, "11K": 1.9})
    losses = losses_of(resolved)
    assert [loss.loss for loss in losses if loss.milestone == "5K"] == [0.0, 0.0]
    assert all(loss.loss < 0 for loss in losses if loss.milestone == "11K")
    assert (forgotten(losses), doubts(resolved.recipe, losses)) == (None, [])


def test_nothing_is_judged_without_a_tolerance_or_before_it_is_measured(own: World) -> None:
    assert losses_of(own.resolve("evaluation.tolerance.general=0")) == []
    resolved = own.resolve()
    measured(resolved, {"5K": 9.0, "11K": 9.0})
    assert losses_of(resolved) == []


def test_the_stability_gap_is_read_from_the_units_of_its_steps(own: World) -> None:
    resolved = own.resolve(EVAL_AT)
    general = {"11K bits_per_byte.general at step 5": 3.0, "11K bits_per_byte.general at step 22": 2.5}
    measured(resolved, {"11K": 2.25, **general})
    walks = walks_of(resolved)
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    model = milestone_models(resolved, walks, corpora)[-1]
    facts = MilestoneFacts.model_validate(
        {"budget": 1, "tokens": 1, "sequences": 1, "shards": 1, "steps": 1, "tokens_trained": 1}
        | {"stability": stability(resolved, model, walks, corpora[0])}
    )
    found = facts.stability["general"]
    steps = [round(point.fraction * 43) for point in found.points]
    assert steps == [0, 5, 22, 43]
    assert [point.tokens for point in found.points] == [step * 4 * 64 for step in steps]
    assert found.points[0].low is None
    assert found.dip == found.points[1].fraction


def test_what_the_general_slice_shares_with_the_domain_is_counted(own: World) -> None:
    resolved = own.resolve()
    walks = walks_of(resolved)
    (found,) = overlaps(resolved, walks, corpus_nodes(resolved, walks[DOMAIN])[0])
    told = Overlap.model_validate(found)
    assert (told.corpus, told.near) == ("general", 0), "its documents are others"
    assert told.documents == min(8, walks["general"].added)
