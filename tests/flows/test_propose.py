"""`dapt init` writes a recipe that loads, can be planned, and says what was found."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.plan import make_plan
from flows.propose import propose_recipe
from flows.recipe import Recipe, load_recipe
from flows.resolve import resolve
from tasks.settings import Settings
from tasks.store.errors import DaptError, RecipeError
from tests.flows.world import documents, write_jsonl, write_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store=str(tmp_path / "store"), workers=2, ranks=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def write_data(folder: Path, kind: str) -> Path:
    """Sixty documents in one kind of file."""
    folder.mkdir()
    texts = documents(0, 60)
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts}), folder / "a.parquet")
    elif kind == "jsonl":
        write_jsonl(folder / "a.jsonl", texts)
    elif kind == "jsonl.gz":
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    else:
        for number, text in enumerate(texts):
            (folder / f"{number:02}.txt").write_text(text)
    return folder


def proposed(model: Path, data: str, settings: Settings, *, force: bool = False) -> tuple[Recipe, str]:
    output = model.parent / "recipe.toml"
    propose_recipe(str(model), data, output, settings, force=force)
    return load_recipe(output), output.read_text()


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz", "txt"])
def test_a_folder_of_any_kind_gives_a_recipe_that_loads_and_plans(
    tmp_path: Path, model: Path, settings: Settings, kind: str
) -> None:
    data = write_data(tmp_path / "my Texts!", kind)
    recipe, text = proposed(model, str(data), settings)
    assert recipe.name == "my-texts-adapt"
    assert recipe.packing.sequence_length == 256
    assert recipe.training.base_model == str(model)
    plan = make_plan(resolve(recipe, settings))
    assert plan["totals"]["miss"] > 0
    assert f"[download]  # {59 if kind == 'txt' else 1} files, 1 source shards" in text, (
        "one file stands twice"
    )
    assert "20,576 parameters, vocabulary 320; no weights: initialised from the seed" in text
    assert "the model's context is 256" in text


def test_its_milestones_are_filled_by_the_text_as_estimated(
    tmp_path: Path, model: Path, settings: Settings
) -> None:
    recipe, text = proposed(model, str(write_data(tmp_path / "d", "jsonl")), settings)
    largest = recipe.budget.milestones[-1]
    characters = sum(len(document) for document in documents(0, 60))
    assert largest <= 0.25 * characters
    assert "MB of text make about" in text
    assert recipe.sequences[0] >= recipe.training.global_batch_sequences


def test_a_file_and_a_glob_are_taken_as_they_are(tmp_path: Path, model: Path, settings: Settings) -> None:
    data = write_data(tmp_path / "d", "txt")
    (data / "long.txt").write_text("\n".join(documents(500, 30)))
    for given, files in ((f"{data}/1*.txt", 10), (str(data / "long.txt"), 1)):
        recipe, _ = proposed(model, given, settings, force=True)
        assert recipe.download.files == (given,)
        assert resolve(recipe, settings).sources["domain"].num_files == files


def test_a_folder_of_several_kinds_names_each(tmp_path: Path, model: Path, settings: Settings) -> None:
    data = write_data(tmp_path / "d", "jsonl")
    (data / "more.txt").write_text("x" * 100)
    recipe, _ = proposed(model, str(data), settings)
    assert recipe.download.files == (f"{data}/*.jsonl", f"{data}/*.txt")


def test_relative_words_mean_the_working_folder(
    tmp_path: Path, model: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "d", "jsonl")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    propose_recipe("model", "d", Path("out/recipe.toml"), settings, force=False)
    recipe = load_recipe("out/recipe.toml")
    assert recipe.training.base_model == str(model)
    assert recipe.download.files == (f"{tmp_path}/d/*.jsonl",)


def test_an_existing_file_is_not_overwritten_without_force(
    tmp_path: Path, model: Path, settings: Settings
) -> None:
    data = str(write_data(tmp_path / "d", "jsonl"))
    output = tmp_path / "recipe.toml"
    output.write_text("mine")
    with pytest.raises(RecipeError, match=r"recipe.toml exists; name another file with --output, .* --force"):
        propose_recipe(str(model), data, output, settings, force=False)
    assert output.read_text() == "mine"
    propose_recipe(str(model), data, output, settings, force=True)
    assert load_recipe(output).name == "d-adapt"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("empty", "holds no file that can be read; expected one of parquet, jsonl"),
        ("./none", r"'./none': there is no such file or folder"),
        ("none/*.txt", r"'none/\*.txt': there is no such file or folder, and nothing matches it"),
    ],
)
def test_missing_data_is_told(
    tmp_path: Path, model: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, data: str, why: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DaptError, match=why):
        propose_recipe(str(model), data, tmp_path / "recipe.toml", settings, force=False)
    assert [path.name for path in tmp_path.glob("*.toml*")] == [], "nothing half-written is left"
    assert not list(tmp_path.glob(".*draft"))


@pytest.mark.parametrize("model_word", ["./none", "/none/at/all"])
def test_a_missing_model_is_told(tmp_path: Path, settings: Settings, model_word: str) -> None:
    data = str(write_data(tmp_path / "d", "jsonl"))
    with pytest.raises(DaptError, match="there is no folder"):
        propose_recipe(model_word, data, tmp_path / "recipe.toml", settings, force=False)
    assert not list(tmp_path.glob("*recipe*"))


def test_an_output_in_a_folder_that_is_missing_is_told(
    tmp_path: Path, model: Path, settings: Settings
) -> None:
    data = str(write_data(tmp_path / "d", "jsonl"))
    with pytest.raises(RecipeError, match="there is no folder"):
        propose_recipe(str(model), data, tmp_path / "no" / "recipe.toml", settings, force=False)


def test_too_little_text_is_told(tmp_path: Path, model: Path, settings: Settings) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_text("A line.")
    with pytest.raises(
        DaptError, match="7 bytes of text make about 1 tokens, less than two sequences of 256; add files"
    ):
        propose_recipe(str(model), str(tmp_path / "d"), tmp_path / "recipe.toml", settings, force=False)


def test_quotes_in_a_path_do_not_break_the_recipe(tmp_path: Path, settings: Settings) -> None:
    model = write_model(tmp_path / 'mo"del')
    data = write_data(tmp_path / 'my "data"\\x', "jsonl")
    recipe, _ = proposed(model, str(data), settings)
    assert recipe.training.base_model == str(model)
    assert recipe.download.files == (f"{data}/*.jsonl",)
