from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.config import EvaluationConfig, items_node
from tasks.evaluation.items import unframed
from tasks.evaluation.unit import build_items
from tasks.store.errors import RecipeError
from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table
from tests.evaluation.hub_folders import piqa
from tests.hub_server import hub_of

pytestmark = pytest.mark.train

ROWS = [
    {"goal": "reach a shelf", "sol1": "climb a ladder", "sol2": "shout at it", "label": 0},
    {"goal": "Boil an egg", "sol1": "in cold air", "sol2": "in hot water", "label": 1},
    {"goal": "paint", "sol1": "use a brush", "sol2": "use a spoon", "label": 0},
]


def build(store: Path, node: Node) -> Manifest:
    return build_node(Store(str(store)), node, build_items, room="tasks.evaluation", shard="x")[0]


def online(patch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    patch.setenv("HF_ENDPOINT", url)
    patch.setenv("HF_HOME", str(home))
    patch.delenv("HF_HUB_OFFLINE", raising=False)


def test_items_are_all_that_the_evaluation_scores_with_their_right_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = items_node(EvaluationConfig(benchmarks=["piqa"], limit=1))
    with hub_of(piqa(tmp_path / "hub", ROWS)) as hub:
        online(monkeypatch, hub.url, tmp_path / "hf")
        manifest = build(tmp_path / "store", node)
    assert read_table(Store(str(tmp_path / "store")), node.path).to_pylist() == [
        {"benchmark": "piqa", "task": "piqa", "doc_id": 0, "text": "reach a shelf\nclimb a ladder"},
        {"benchmark": "piqa", "task": "piqa", "doc_id": 1, "text": "Boil an egg\nin hot water"},
        {"benchmark": "piqa", "task": "piqa", "doc_id": 2, "text": "paint\nuse a brush"},
    ]
    assert manifest.documents_in == manifest.documents_out == 3
    assert list(map(len, manifest.details["datasets"].values())) == [40]
    assert not (tmp_path / "store" / "work" / "benchmarks").exists()
    assert not list((tmp_path / "store").glob("work/evaluation/*"))


@pytest.mark.slow
def test_items_of_the_papers_benchmarks_hold_passage_question_and_answer(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["arc_easy", "boolq", "winogrande"]
    node = items_node(EvaluationConfig(benchmarks=names))
    with hub_of(data_folder / "benchmarks") as hub:
        online(monkeypatch, hub.url, tmp_path / "hf")
        build(tmp_path / "store", node)
    items = read_table(Store(str(tmp_path / "store")), node.path).to_pylist()
    of = {name: [item["text"] for item in items if item["benchmark"] == name] for name in names}
    assert [len(texts) for texts in of.values()] == [2376, 3270, 1267]
    assert of["arc_easy"][0] == (
        "Which statement best explains why photosynthesis is the foundation of most food webs?\n"
        "Sunlight is the source of energy for nearly all ecosystems."
    )
    assert of["winogrande"][0] == (
        "Sarah was a much better surgeon than Maria so Maria\nalways got the easier cases."
    )
    assert of["boolq"][0].startswith("Ethanol fuel -- All biomass goes through")
    assert of["boolq"][0].endswith("does ethanol take more energy make that produces?\nno")


def test_an_unknown_benchmark_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean piqa"):
        build(tmp_path / "store", items_node(EvaluationConfig(benchmarks=["piqaa"])))


@given(st.lists(st.text("ab \n", min_size=1), min_size=2, max_size=5), st.sampled_from(["", "Q: ", "Q\n"]))
def test_a_frame_is_cut_whole_word_by_whole_word(texts: list[str], head: str) -> None:
    asked = [f"x{number}{text}{number}y" for number, text in enumerate(texts)]
    assert unframed([f"{head}{text}\nAnswer:" for text in asked]) == asked


def test_of_a_single_item_no_frame_is_known() -> None:
    assert unframed(["Question: why?"]) == ["Question: why?"]
    assert unframed(["same", "same"]) == ["same", "same"]
    assert unframed([]) == []
