"""A recipe's mistakes are told in one line each: the field, what was found, what was expected."""

import re
import shlex
from pathlib import Path

import pytest

from flows.recipe import Recipe, load_recipe
from tasks.store.errors import RecipeError
from tests.flows.world import World

RECIPES = Path(__file__).parents[2] / "deployments" / "recipes"


def told(world: World, *overrides: str) -> list[str]:
    """What is said of a recipe, without the file's name."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(world.recipe, overrides)
    return [line.removeprefix(f"{world.recipe}: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("override", "field", "why"),
    [
        ("buget.milestones=[1]", "buget", "there is no such key; did you mean budget?"),
        ("filtering.min_line=3", "filtering.min_line", "there is no such key; did you mean min_lines?"),
        (
            "filtering.quality.min_wrds=3",
            "filtering.quality.min_wrds",
            "there is no such key; did you mean min_words?",
        ),
        ("general.text_colum=x", "general.text_colum", "there is no such key; did you mean text_column?"),
        (
            'budget.milestones=["4OOM"]',
            "budget.milestones.0",
            "'4OOM' is no amount; expected a number of tokens such",
        ),
        ('budget.milestones=["4K", "-1K"]', "budget.milestones.1", "'-1K' is no amount; expected a number"),
        ("budget.milestones=[]", "budget.milestones", "list should have at least 1 item"),
        ("budget.milestones=4000", "budget.milestones", "expected a list: [...] (found 4000)"),
        ('budget.milestones=["4K","2K"]', "budget", "milestones must grow, found 4K, 2K; order them"),
        (
            'budget.milestones=["4K","4K"]',
            "budget",
            "milestones must grow, found 4K, 4K; order them and",
        ),
        ("budget=3", "budget", "expected a section of its own (found 3)"),
        ("general=4", "general", "expected a section of its own (found 4)"),
        ("training.betas=0.9", "training.betas", "expected a list: [...] (found 0.9)"),
        ("training.learning_rate=-1", "training.learning_rate", "input should be greater than 0 (found -1)"),
        ("training.learning_rate=fast", "training.learning_rate", "input should be a valid number"),
        (
            "training.learning_rate=inf",
            "training.learning_rate",
            "input should be a finite number (found inf)",
        ),
        (
            "training.schedule=linear",
            "training.schedule",
            "input should be 'cosine', 'wsd' or 'infinite' (found 'linear')",
        ),
        ("training.zero_stage=5", "training.zero_stage", "input should be 0, 1, 2, 3 or 'auto' (found 5)"),
        ("seed=-1", "seed", "input should be greater than or equal to 0 (found -1)"),
        (
            "download.dataset=a/b",
            "download",
            "found dataset and files; expected one of dataset, files, source and adopted",
        ),
        (
            "general.replay_fraction=0.3",
            "general",
            "replay_fraction is 0.3; expected 0.01 to 0.25 of all sequences, or 0, which measures general "
            "text and replays none",
        ),
        (
            "general.replay_fraction=0.009",
            "general",
            "replay_fraction is 0.009; expected 0.01 to 0.25 of all sequences, or 0, which measures general "
            "text and replays none",
        ),
        (
            "general.max_repeats=2",
            "general",
            "max_repeats=2 is about replay, and replay_fraction is 0; give it too, or leave max_repeats out",
        ),
        (
            "training.global_batch_sequences=960",
            "budget.milestones",
            "5K adds 79 sequences of 64 tokens, less than one global batch of "
            "training.global_batch_sequences = 960; raise the milestone or lower the batch",
        ),
        (
            'budget.milestones=["5K", "5100"]',
            "budget.milestones",
            "5.1K adds 1 sequences of 64 tokens, less than one",
        ),
    ],
)
def test_a_mistake_is_one_line_with_field_found_and_expected(
    given: World, override: str, field: str, why: str
) -> None:
    (line,) = told(given, override)
    assert line.startswith(f"{field}: {why}")


@pytest.mark.parametrize("name", ["Foo", "foo bar", "-foo", "foo_bar", "", "ünder"])
def test_a_name_is_lower_case_letters_digits_and_hyphens(given: World, name: str) -> None:
    (line,) = told(given, f'name="{name}"')
    assert line.startswith("name: string should match pattern")
    assert repr(name) in line


def test_each_of_several_mistakes_has_its_line(given: World) -> None:
    lines = told(given, "seed=-1", "training.learning_rate=0", "packing.length=3")
    assert [line.split(":")[0] for line in lines] == ["seed", "packing.length", "training.learning_rate"]


@pytest.mark.parametrize("section", ["budget", "download", "training"])
def test_a_missing_section_is_named(world: World, section: str) -> None:
    text = re.sub(rf"\[{section}\]\n(.+\n)+\n?", "", world.recipe.read_text())
    world.recipe.write_text(text)
    assert told(world) == [f"{section}: is missing and has no default"]


def test_a_missing_name_and_base_are_named(world: World) -> None:
    text = world.recipe.read_text().replace('name = "tiny"\n', "").replace('base_model = "./model"\n', "")
    world.recipe.write_text(text)
    expected = ["name: is missing and has no default", "training.base_model: is missing and has no default"]
    assert told(world) == expected


def test_a_key_without_a_likeness_is_told_with_those_there_are(given: World) -> None:
    (line,) = told(given, "packing.xyz=3")
    assert line == "packing.xyz: there is no such key; known: sequence_length"


def test_what_is_no_toml_is_told_with_its_place(world: World) -> None:
    world.recipe.write_text('name = "x\n')
    (line,) = told(world)
    assert re.search(r"cannot be read as TOML: .* line 1", line)


def test_a_missing_file_is_told_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"there is no recipe .*none.toml; `dapt init MODEL DATA` writes one"
    ):
        load_recipe(tmp_path / "none.toml")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read as TOML"):
        load_recipe(tmp_path)


def test_what_is_no_utf_8_is_told(world: World) -> None:
    world.recipe.write_bytes(b'name = "\xff"')
    assert "cannot be read as TOML" in told(world)[0]


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("training.learning_rate=2e-4", "training.learning_rate", 2e-4),
        ("training.learning_rate = 2e-4", "training.learning_rate", 2e-4),
        ("training.precision=bf16", "training.precision", "bf16"),
        ('training.precision="bf16"', "training.precision", "bf16"),
        ("name=another", "name", "another"),
        ('budget.milestones=["2K", "9K"]', "budget.milestones", [2000, 9000]),
        ("budget.milestones=[2000]", "budget.milestones", [2000]),
        ("filtering.quality=true", "filtering.quality.min_words", 50),
        ("filtering.quality.min_words=7", "filtering.quality.min_words", 7),
        ("training.betas=[0.9, 0.99]", "training.betas", (0.9, 0.99)),
        ("download.shard_bytes=1MB", "download.shard_bytes", 1_000_000),
        ("tokenization.tokenizer=own/er=x", "tokenization.tokenizer", "own/er=x"),
    ],
)
def test_set_takes_a_dotted_path_and_a_toml_value_or_a_bare_word(
    given: World, override: str, field: str, value: object
) -> None:
    found: object = given.load(override)
    for part in field.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("training", "expected field=value, such as training.learning_rate=2e-4"),
        ("=3", "expected field=value"),
        (" . =3", "expected field=value"),
        ("training..x=3", "a name between the dots is empty"),
        ("training.=3", "a name between the dots is empty"),
        ("name.x=3", "name is a value, expected a section"),
        ("training.learning_rate.x=3", "learning_rate is a value, expected a section"),
    ],
)
def test_a_set_that_names_no_field_is_refused(given: World, override: str, why: str) -> None:
    (line,) = told(given, override)
    assert line == f"--set {override!r}: {why}" or line.startswith(f"--set {override!r}: {why}")


def test_the_last_set_of_a_field_wins(given: World) -> None:
    assert given.load("seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ('download.files=["a.jsonl", "s3://key:plantedpw@bucket/*.jsonl"]', "download.files"),
        ('general.files=["https://host/a.jsonl?token=plantedpw"]', "general.files"),
        ("training.base_model=s3://key:plantedpw@bucket/model", "training.base_model"),
    ],
)
def test_a_credential_in_a_url_is_refused_and_not_repeated(given: World, override: str, field: str) -> None:
    (line,) = told(given, override)
    assert f"{field}: the URL carries" in line
    assert "HF_TOKEN" in line
    assert "Secret blocks" in line
    assert "plantedpw" not in line


def test_relative_paths_are_relative_to_the_recipe_s_file(
    given: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = given.load('download.files=["a/*.txt", "/b/*.txt", "s3://c/*.txt"]')
    assert recipe.download.files == (str(given.folder / "a/*.txt"), "/b/*.txt", "s3://c/*.txt")
    assert recipe.general is not None
    assert recipe.general.files == (str(given.folder / "general/*.jsonl"),)
    assert recipe.training.base_model == str(given.folder / "model")


def test_a_folder_beside_the_recipe_is_a_model_and_any_other_word_a_hub_id(given: World) -> None:
    assert given.load("training.base_model=model").training.base_model == str(given.folder / "model")
    assert given.load("training.base_model=facebook/opt").training.base_model == "facebook/opt"
    assert given.load("tokenization.tokenizer=./model").tokenization.tokenizer == str(given.folder / "model")
    assert given.load("training.base_model=./none").training.base_model == str(given.folder / "none")


def test_a_reference_to_a_recipe_is_made_absolute(given: World) -> None:
    found = given.load("training.base_model=recipe:../base.toml").training.base_model
    assert found == f"recipe:{given.folder.parent / 'base.toml'}"


def test_a_reference_to_a_recipe_that_was_not_run_says_what_to_run(world: World) -> None:
    (world.folder / "base.toml").write_text(world.recipe.read_text().replace('"tiny"', '"base"'))
    with pytest.raises(
        RecipeError, match=r"last model of .*base.toml does not stand in .*; run `dapt run .*base.toml`"
    ):
        world.resolve("training.base_model=recipe:base.toml")


def test_a_reference_to_a_recipe_that_is_missing_is_told(world: World) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe .*none.toml"):
        world.resolve("training.base_model=recipe:none.toml")


def test_a_tokenizer_with_more_ids_than_the_embedding_is_refused(world: World) -> None:
    config = world.folder / "model" / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 320', '"vocab_size": 300'))
    with pytest.raises(RecipeError, match=r"the tokenizer has 320 ids, the embedding of .* 300"):
        world.resolve()


def test_sequences_round_a_milestone_up(given: World) -> None:
    assert given.load('budget.milestones=["5K", 6400]').sequences == [79, 100]


def test_a_digest_tells_recipes_apart_and_survives_plain_json(given: World) -> None:
    recipe = given.load()
    assert recipe.digest == Recipe.model_validate(recipe.model_dump(mode="json")).digest
    assert recipe.digest != given.load("seed=6").digest


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.toml")), ids=lambda file: file.stem)
def test_the_recipes_that_come_along_are_valid_and_bear_their_files_names(file: Path) -> None:
    assert load_recipe(file).name == file.stem


def test_a_subset_seen_often_is_as_much_training_as_its_plain_neighbour() -> None:
    plain, best = load_recipe(RECIPES / "fineweb-edu.toml"), load_recipe(RECIPES / "fineweb-edu-best.toml")
    assert best.budget.milestones[0] * best.training.epochs == plain.budget.milestones[0]
    assert best.download.where
    assert best.download.model_copy(update={"where": ""}) == plain.download


def test_the_papers_recipe_has_the_papers_batch_on_six_devices_and_as_told_on_three() -> None:
    file = RECIPES / "paper.toml"
    (command,) = (line for line in file.read_text().splitlines() if line.startswith("#   dapt run"))
    words = shlex.split(command.removeprefix("#"))
    assert words[:3] == ["dapt", "run", file.name]
    overrides = [word for word in words[3:] if word != "--set"]
    for recipe, devices, budgets in (
        (load_recipe(file), 6, [400_000_000, 1_000_000_000]),
        (load_recipe(file, overrides), 3, [400_000_000]),
    ):
        assert recipe.budget.milestones == budgets
        assert recipe.training.global_batch_sequences == 80 * 2 * devices
        assert recipe.training.micro_batch == 80
