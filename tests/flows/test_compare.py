"""Two models compared by what stands of them: paired where both saw the same items, told why where not."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from flows.chain import DOMAIN
from flows.compare import compare, print_comparison
from flows.milestones import base_model, corpus_nodes, evaluation_nodes, milestone_models
from flows.outcome import walks_of
from flows.recipe import load_recipe
from flows.resolve import resolve
from tasks.evaluation.statistics import paired_accuracy
from tasks.evaluation.tables import BENCHMARK_ITEMS, HELD_OUT_ITEMS
from tasks.store.errors import DaptError, RecipeError, SourceError, StoreDamaged
from tasks.store.json import JSON
from tasks.store.node import Node
from tasks.store.shard import NodeWriter, build_node
from tests.flows.commands import dapt
from tests.flows.made import make_corpora
from tests.flows.world import World, write_model

ITEMS = 400
HALF = tuple(range(200))
"""Items that are right."""
MORE = tuple(range(260))
"""Those and 60 others."""


def units_of(world: World, file: Path, label: str) -> dict[str, Node]:
    """What a recipe asks to measure on one of its models."""
    resolved = resolve(load_recipe(file), world.settings)
    walks = walks_of(resolved)
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    models = {m.label: m for m in [base_model(resolved), *milestone_models(resolved, walks, corpora)]}
    return evaluation_nodes(resolved, models[label], walks, corpora[0])


def measure(
    world: World, label: str, *, file: Path | None = None, **measured: Sequence[int] | Sequence[float]
) -> None:
    """Have measured: by benchmark which items are right, by slice (`domain`) the nats of each document."""
    units = units_of(world, file or world.recipe, label)
    store = resolve(load_recipe(file or world.recipe), world.settings).store
    for name, values in measured.items():
        slices = name in ("domain", "general")

        def build(writer: NodeWriter, values: Sequence[float] = values, *, slices: bool = slices) -> None:
            table = documents(values) if slices else items(values)
            with writer.parquet(table.schema) as out:
                out.write_table(table)
            writer.documents_in = writer.documents_out = len(table)
            writer.details = {"bits_per_byte": 1.5} if slices else score(len(values))

        unit = units[f"bits_per_byte.{name}" if slices else name]
        build_node(store, unit, build, room="tasks.evaluation", shard=name)


def items(right: Sequence[float]) -> pa.Table:
    """So many items, of which some are right; the first answer is always chosen and often right."""
    columns = {
        "benchmark": ["b"] * ITEMS,
        "doc_id": range(ITEMS),
        "doc_hash": [f"{number:x}" for number in range(ITEMS)],
        "correct": [number in right for number in range(ITEMS)],
        "correct_norm": [None] * ITEMS,
        "chosen": [0] * ITEMS,
        "target": [number % 2 for number in range(ITEMS)],
        "log_likelihoods": [[-1.0, -2.0]] * ITEMS,
    }
    return pa.table({name: list(column) for name, column in columns.items()}, schema=BENCHMARK_ITEMS)


def documents(nats: Sequence[float]) -> pa.Table:
    count = len(nats)
    columns = {"id": [f"d{number}" for number in range(count)], "bytes": [1000] * count, "nats": list(nats)}
    return pa.table({**columns, "tokens": [250] * count}, schema=HELD_OUT_ITEMS)


def score(right: int) -> JSON:
    share = right / ITEMS
    error = (share * (1 - share) / ITEMS) ** 0.5
    return {"score": share, "stderr": error, "metric": "acc", "items": ITEMS, "chance": 0.5}


@pytest.fixture
def asked(standing: World) -> World:
    """A world whose recipe asks for two benchmarks; its corpora stand, nothing was measured."""
    write(standing.recipe, standing.recipe, "benchmarks = []", 'benchmarks = ["arc_easy", "boolq"]')
    return standing


def write(file: Path, like: Path, *changes: str) -> Path:
    """A recipe like another, its name that of its file but for the first one's; changes are old, new, ..."""
    text = like.read_text() if file == like else like.read_text().replace('"tiny"', f'"{file.stem}"')
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return file


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are typed in the world's folder, on its store."""
    if "asked" in request.fixturenames:
        world: World = request.getfixturevalue("asked")
        monkeypatch.chdir(world.folder)
        monkeypatch.setenv("DAPT_STORE", str(world.store))


def shown(told: JSON, width: int = 120) -> str:
    out = io.StringIO()
    print_comparison(told, Console(file=out, width=width))
    return out.getvalue()


def test_two_milestones_are_compared_on_the_same_items_with_a_corrected_p(asked: World) -> None:
    measure(asked, "5K", arc_easy=HALF, boolq=HALF, domain=[900.0] * 8, general=[1000, 1001] * 4)
    measure(asked, "11K", arc_easy=MORE, boolq=(*HALF[1:], 300), domain=[800.0] * 8, general=[1001, 1000] * 4)
    told = compare("recipe.toml@5K", "recipe.toml@11K")
    assert (told["a"]["milestone"], told["b"]["milestone"]) == ("5K", "11K")
    assert told["a"]["model"].startswith(str(asked.store / "training"))
    assert set(told["metrics"]) == {"arc_easy", "boolq", "bits_per_byte.domain", "bits_per_byte.general"}
    found = told["metrics"]["arc_easy"]
    right = np.zeros((2, ITEMS), bool)
    right[0, list(HALF)] = right[1, list(MORE)] = True
    expected = paired_accuracy(*right)
    assert (found["a"], found["b"], found["difference"]) == pytest.approx((0.5, 0.65, 0.15))
    assert [found[key] for key in ("low", "high", "p", "pairs")] == [
        expected.low, expected.high, expected.p, ITEMS,
    ]  # fmt: skip
    assert found["p_holm"] == 4 * found["p"], "the smallest of four"
    kinds = {name: change["kind"] for name, change in told["metrics"].items()}
    assert kinds == {
        "arc_easy": "gain", "boolq": "inseparable",
        "bits_per_byte.domain": "gain", "bits_per_byte.general": "inseparable",
    }  # fmt: skip
    assert told["summary"] == [
        "Of 2 benchmarks, tiny@11K against tiny@5K is higher on 1 (arc_easy), not separable on 1.",
        "Bits per byte: domain \N{MINUS SIGN}0.144 (better), general 0.000 (not separable).",
    ]
    assert told["groups"]["educational"]["benchmarks"] == ["arc_easy"]
    assert told["groups"]["educational"]["relative"] == pytest.approx(0.3)
    assert (told["differs"], told["missing"]) == ([], [])
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_run_without_a_milestone_is_its_largest_that_was_measured(asked: World) -> None:
    measure(asked, "base", arc_easy=HALF)
    measure(asked, "5K", arc_easy=MORE)
    told = compare("recipe.toml@base", "recipe.toml")
    assert [told[side]["milestone"] for side in ("a", "b")] == ["base", "5K"]
    measure(asked, "11K", arc_easy=HALF)
    assert compare("recipe.toml@base", "recipe.toml")["b"]["milestone"] == "11K"
    assert compare("recipe.toml@base", "recipe.toml@5_000")["b"]["milestone"] == "5K"


def test_two_recipes_are_told_apart_by_each_field(asked: World) -> None:
    changes = (
        "learning_rate = 1e-3",
        "learning_rate = 2e-3",
        "[general]",
        "[filtering]\nmin_lines = 3\n[general]",
    )
    other = write(asked.folder / "other.toml", asked.recipe, *changes)
    for file in (asked.recipe, other):
        measure(asked, "5K", file=file, arc_easy=HALF, domain=[900.0] * 8)
    told = compare("recipe.toml", "other.toml")
    assert told["differs"] == [{"field": "training.learning_rate", "a": 1e-3, "b": 2e-3}]
    assert told["a"]["model"] != told["b"]["model"]
    assert told["metrics"]["arc_easy"]["difference"] == 0
    assert "  training.learning_rate: 0.001 → 0.002\n" in shown(told)


def test_another_tokenizer_is_compared_by_bits_per_byte(asked: World) -> None:
    tokenizer = asked.folder / "model" / "tokenizer.json"
    other = write_model(asked.folder / "other-model") / "tokenizer.json"
    other.write_text(other.read_text().replace("<|end|>", "<|stop|>"))
    config = other.with_name("tokenizer_config.json")
    config.write_text(config.read_text().replace("<|end|>", "<|stop|>"))
    assert other.read_bytes() != tokenizer.read_bytes()
    file = write(asked.folder / "other.toml", asked.recipe, "./model", "./other-model")
    make_corpora(resolve(load_recipe(file), asked.settings))
    measure(asked, "5K", domain=[900.0] * 8)
    measure(asked, "5K", file=file, domain=[950.0] * 8)
    told = compare("recipe.toml", "other.toml")
    assert told["metrics"]["bits_per_byte.domain"]["difference"] > 0
    assert told["differs"][0]["field"] == "training.base_model"


def test_the_same_base_under_two_recipes_is_one_model(asked: World) -> None:
    write(asked.folder / "other.toml", asked.recipe, "learning_rate = 1e-3", "learning_rate = 2e-3")
    measure(asked, "base", arc_easy=MORE)
    told = compare("recipe.toml@base", "other.toml@base")
    assert told["summary"][0] == "tiny@base and other@base are the same model."
    assert told["metrics"]["arc_easy"]["difference"] == 0


def test_what_one_side_lacks_is_named_with_what_to_run(asked: World) -> None:
    other = write(
        asked.folder / "other.toml", asked.recipe, '"arc_easy", "boolq"', '"arc_easy"',
        '[general]\nfiles = ["general/*.jsonl"]\n', "", "learning_rate = 1e-3", "learning_rate = 2e-3",
    )  # fmt: skip
    measure(asked, "5K", arc_easy=HALF, boolq=HALF, general=[1000.0] * 8)
    measure(asked, "5K", file=other, arc_easy=MORE, domain=[900.0] * 8)
    told = compare("recipe.toml", "other.toml")
    assert list(told["metrics"]) == ["arc_easy"]
    assert [tuple(entry.values()) for entry in told["missing"]] == [
        ("boolq", "b", "other.toml does not name it in evaluation.benchmarks", None),
        ("bits_per_byte.domain", "a", "not measured yet", "dapt run recipe.toml"),
        ("bits_per_byte.general", "b", "other.toml has no [general] section", None),
    ]
    assert all(set(entry) == {"metric", "side", "why", "run"} for entry in told["missing"])
    assert "not compared: bits_per_byte.domain, A: not measured yet; dapt run recipe.toml\n" in shown(told)


def test_a_unit_that_failed_is_told_with_its_error(asked: World) -> None:
    measure(asked, "5K", arc_easy=HALF, boolq=HALF)
    measure(asked, "11K", arc_easy=HALF)

    def fail(_writer: NodeWriter) -> None:
        raise SourceError("the benchmark's data set cannot be had\nand more")

    unit = units_of(asked, asked.recipe, "11K")["boolq"]
    with pytest.raises(SourceError):
        build_node(asked.resolve().store, unit, fail, room="tasks.evaluation", shard="boolq")
    (failed,) = (m for m in compare("recipe.toml@5K", "recipe.toml")["missing"] if m["metric"] == "boolq")
    assert (failed["side"], failed["why"]) == ("b", "failed: the benchmark's data set cannot be had")


def test_what_was_measured_on_something_else_is_not_paired_and_told_why(asked: World) -> None:
    few = write(asked.folder / "few.toml", asked.recipe, "max_documents = 8", "max_documents = 4")
    shots = write(asked.folder / "shots.toml", asked.recipe, "[evaluation]", "[evaluation]\nnum_fewshot = 5")
    measure(asked, "5K", arc_easy=HALF, domain=[900.0] * 8)
    measure(asked, "5K", file=few, arc_easy=HALF, domain=[900.0] * 4, general=[900.0])
    measure(asked, "5K", file=shots, arc_easy=MORE)
    measure(asked, "11K", general=[900.0])
    reasons = {m["metric"]: m["why"] for m in compare("recipe.toml@5K", "few.toml")["missing"]}
    assert reasons["bits_per_byte.domain"] == "not the same documents: 8 for A, 4 for B"
    told = compare("recipe.toml@5K", "shots.toml@5K")
    assert told["metrics"].keys() == {"bits_per_byte.domain"}
    assert told["missing"][-1] == {
        "metric": "arc_easy",
        "side": None,
        "why": "num_fewshot was the benchmark's own for A and 5 for B",
        "run": None,
    }
    one = {m["metric"]: m["why"] for m in compare("recipe.toml@11K", "few.toml")["missing"]}
    assert one["bits_per_byte.general"] == "too few documents: 1 for A, 1 for B"


def test_a_score_that_says_little_is_flagged(asked: World) -> None:
    measure(asked, "base", arc_easy=HALF, boolq=range(100))
    measure(asked, "5K", arc_easy=MORE, boolq=range(100))
    told = compare("recipe.toml@base", "recipe.toml")
    assert told["metrics"]["arc_easy"]["flags"]["a"][0] == "at chance"
    assert "at chance" not in told["metrics"]["arc_easy"]["flags"]["b"]
    assert told["metrics"]["boolq"]["flags"]["b"][0] == "below chance"
    assert "boolq, B: below chance" in shown(told)


def test_a_table_says_in_words_what_separates_and_what_could_have(asked: World) -> None:
    measure(asked, "5K", arc_easy=HALF, boolq=HALF, domain=[900.0] * 8)
    measure(asked, "11K", arc_easy=MORE, boolq=(*HALF[1:], 300), domain=[990.0] * 8)
    text = shown(compare("recipe.toml@5K", "recipe.toml@11K"))
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["arc_easy"].split()[:4] == ["arc_easy", "0.5000", "0.6500", "+0.1500"]
    assert lines["arc_easy"].split()[-4:] == ["<.001", "<.001", "B", "higher"]
    assert "not separable (could have shown 0.0" in lines["boolq"]
    assert "B higher (worse)" in lines["bits/byte,"]
    narrow = shown(compare("recipe.toml@5K", "recipe.toml@11K"), width=80)
    table = narrow[narrow.index("metric ") : narrow.index("not compared")]
    row = r"arc_easy +0.5000 0.6500 \+0.1500 \+0.1137 to \+0.1848 <.001 <.001 B higher"
    assert re.search(row, table), "80 columns hold the numbers"
    assert max(map(len, table.splitlines())) <= 80


def test_a_milestone_that_is_not_there_is_told_with_those_that_are(asked: World) -> None:
    with pytest.raises(RecipeError, match=r"recipe.toml has no milestone 2B; there are base, 5K, 11K"):
        compare("recipe.toml@2B", "recipe.toml")
    with pytest.raises(RecipeError, match=r"recipe.toml@largest: 'largest' is no amount; .*, or base"):
        compare("recipe.toml@largest", "recipe.toml")
    with pytest.raises(RecipeError, match=r"there is no recipe none\.toml"):
        compare("none.toml@5K", "recipe.toml")


def test_what_was_not_measured_is_told_with_what_to_run(asked: World) -> None:
    nothing = r"nothing was measured on 11K of recipe.toml; run `dapt run recipe.toml`$"
    with pytest.raises(DaptError, match=nothing):
        compare("recipe.toml@11K", "recipe.toml")
    measure(asked, "base", arc_easy=HALF)
    measured = (
        r"nothing was measured on a milestone of recipe.toml; .*, or compare what was: recipe.toml@base$"
    )
    with pytest.raises(DaptError, match=measured):
        compare("recipe.toml", "recipe.toml@base")


def test_a_recipe_with_an_at_sign_in_its_name_is_a_file(asked: World) -> None:
    write(asked.folder / "at@home.toml", asked.recipe, 'name = "at@home"', 'name = "at"')
    measure(asked, "base", arc_easy=HALF)
    told = compare("at@home.toml@base", "recipe.toml@base")
    assert told["a"]["recipe"] == "at"


def test_a_damaged_unit_is_told(asked: World) -> None:
    for label in ("5K", "11K"):
        measure(asked, label, arc_easy=HALF)
    unit = units_of(asked, asked.recipe, "5K")["arc_easy"]
    file = asked.store / unit.path / "data.parquet"
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)
    with pytest.raises(StoreDamaged, match=unit.fingerprint):
        compare("recipe.toml@5K", "recipe.toml@11K")


@pytest.mark.slow
def test_the_command_tells_one_object_or_a_table_and_its_mistakes_by_exit_code(asked: World) -> None:
    measure(asked, "base", arc_easy=HALF, domain=[900.0] * 8)
    measure(asked, "11K", arc_easy=MORE, domain=[800.0] * 8)
    done = dapt(asked, "compare", "recipe.toml@base", "recipe.toml", "--json")
    assert (done.code, done.err) == (0, "")
    assert set(done.told) == {"a", "b", "summary", "metrics", "groups", "differs", "missing"}
    assert done.told["metrics"]["arc_easy"]["kind"] == "gain"
    table = dapt(asked, "compare", "recipe.toml@base", "recipe.toml", COLUMNS="100")
    assert table.code == 0
    assert table.out.startswith("Of 1 benchmark, tiny@11K against tiny@base is higher on 1 (arc_easy).\n")
    assert not (asked.store / "prefect").exists(), "a comparison starts no server"
    unknown = dapt(asked, "compare", "recipe.toml@7K", "recipe.toml", "--json")
    assert (unknown.code, unknown.out) == (2, "")
    assert "no milestone 7K; there are base, 5K, 11K" in unknown.err
    nothing = dapt(asked, "compare", "recipe.toml@5K", "recipe.toml", "--json")
    assert nothing.code == 1
    assert nothing.told["metrics"] == {}
    assert "run `dapt run recipe.toml`" in nothing.told["error"]
