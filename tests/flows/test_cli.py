"""The command line: exit codes, JSON alone on stdout, errors without tracebacks, interruption."""

import gzip
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.flows.commands import Api, Done, await_that, dapt, made, processes_of, started
from tests.flows.world import World, documents, write_jsonl

pytestmark = pytest.mark.flow

Here = Callable[..., Done]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    """`here(world, *words)`: a command in this process, for those that start nothing; it is quick."""
    from flows.cli import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loggers = [logging.getLogger(name) for name in ("", "tasks", "flows", "py.warnings")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]

    def call(world: World, *words: str, **env: str) -> Done:
        for name, value in {**world.env(**env), "COLUMNS": "200"}.items():
            if name.startswith(("DAPT_", "COLUMNS", "CUDA")):
                monkeypatch.setenv(name, value)
        monkeypatch.chdir(world.folder)
        monkeypatch.setattr(sys, "argv", ["dapt", *words])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        finally:
            logging.captureWarnings(capture=False)
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for logger, theirs, level in before:
        logger.handlers[:] = theirs
        logger.setLevel(level)


def is_clean(done: Done) -> bool:
    """Whether what a user sees holds no traceback and can be read at one glance."""
    return "Traceback" not in done.out + done.err and len(done.err.splitlines()) < 40


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan", "none.toml"], "error: there is no recipe none.toml"),
        (["plan", "recipe.toml", "--set", "seed=-1"], "recipe.toml: seed: input should be greater"),
        (["run", "recipe.toml", "--set", "buget.x=1", "--json"], "buget: there is no such key; did you mean"),
        (["run", "recipe.toml", "--until", "lunch"], "'lunch' is not one of"),
        (["plan"], "Missing argument 'RECIPE'"),
        (["lunch"], "No such command 'lunch'"),
        (["show", "recipe.toml", "lunch"], "'lunch' is not one of"),
        (["show", "recipe.toml", "packed", "-n", "0"], "Invalid value for '-n'"),
        (["adopt", "domain"], "Missing option '--tokenizer'"),
        (["adopt", "domain", "--tokenizer", "model", "--name", "A b"], "error: --name 'A b': expected"),
        (["gc", "--keep", "none.toml"], "error: there is no recipe none.toml"),
        (["lineage", "recipe.toml"], "error: recipe.toml lies in no node of a store"),
        (["init", "model", "./none", "-o", "new.toml"], "error: './none': there is no such file or folder"),
        (["init", "model", "domain", "-o", "recipe.toml"], "recipe.toml exists"),
    ],
)  # fmt: skip
def test_a_bad_recipe_or_argument_is_told_with_exit_2(
    given: World, here: Here, words: list[str], told: str
) -> None:
    done = here(given, *words)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert is_clean(done)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("DAPT_WORKERS", "0", "error: DAPT_WORKERS: Input should be greater than or equal to 1 (found '0')"),
        ("DAPT_WORKERS", "many", "error: DAPT_WORKERS: Input should be a valid integer"),
        ("DAPT_RANKS", "-1", "error: DAPT_RANKS: "),
    ],
)
def test_a_bad_setting_is_told_with_exit_2(
    given: World, here: Here, name: str, value: str, told: str
) -> None:
    done = here(given, "plan", "recipe.toml", **{name: value})
    assert (done.code, done.out) == (2, "")
    assert told in done.err


def test_a_store_that_is_a_file_is_told(given: World, here: Here) -> None:
    done = here(given, "plan", "recipe.toml", DAPT_STORE=str(given.recipe))
    assert done.code == 1
    assert str(given.recipe) in done.err
    assert is_clean(done)


def test_a_source_that_is_missing_is_exit_1_and_json_all_the_same(given: World, here: Here) -> None:
    for words in (["run"], ["plan"], ["status"], ["verify"]):
        done = here(given, *words, "recipe.toml", "--json", "--set", 'download.files=["none/*.txt"]')
        assert done.code == 1
        assert "none/*.txt' matches no file" in done.told["error"]
        assert done.err == f"error: {done.told['error']}\n"
    keys = {"recipe", "stages", "milestones", "base", "failed", "report", "forgetting", "error"}
    done = here(given, "run", "recipe.toml", "--json", "--set", 'download.files=["none/*.txt"]')
    assert set(done.told) == keys


def test_too_little_disk_is_told_before_anything_starts(
    given: World, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("tasks.store.shard.shutil.disk_usage", lambda _path: Usage)
    done = here(given, "run", "recipe.toml", "--json")
    assert done.code == 1
    assert "0.0 GB free" in done.told["error"]
    assert "watch it at" not in done.err


def test_help_names_every_command_and_no_arguments_are_help(given: World, here: Here) -> None:
    done = here(given, "--help")
    commands = "init plan run status show verify budget adopt gc lineage doctor ui"
    for command in commands.split():
        assert command in done.out
    assert "Exit codes" in done.out
    assert done.code == 0


def test_what_is_told_is_one_json_object_or_a_text(corpora: World, here: Here) -> None:
    told = {command: here(corpora, command, "recipe.toml", "--json").told for command in ("plan", "status")}
    assert set(told["plan"]) == {"recipe", "nodes", "totals", "memory", "pool"}
    assert set(told["status"]) == {"recipe", "failed", "waiting", "missing", "stages", "forgetting"}
    for what in ("dropped", "packed"):
        shown = here(corpora, "show", "recipe.toml", what, "-n", "2", "--json").told
        assert len(shown[what]) == 2
    for words in (["plan"], ["status"], ["show", "dropped"], ["show", "packed"]):
        done = here(corpora, words[0], "recipe.toml", *words[1:])
        assert (done.code, done.err) == (0, "")
        assert done.out


def test_status_works_before_any_run_and_starts_no_server(world: World, here: Here) -> None:
    done = here(world, "status", "recipe.toml")
    assert done.code == 0
    assert "packing" in done.out
    assert not (world.store / "prefect").exists()


def test_show_for_an_unknown_reason_is_exit_1(corpora: World, here: Here) -> None:
    done = here(corpora, "show", "recipe.toml", "dropped", "--reason", "boring", "--json")
    assert done.code == 1
    assert "reasons here: exact, held_out, min_lines" in done.told["error"]
    assert done.told["dropped"] == []


def test_verify_is_exit_0_then_3_with_what_is_damaged(standing: World, here: Here) -> None:
    assert here(standing, "verify", "recipe.toml", "--json").told["damaged"] == []
    file = next(standing.store.glob("packing/*/*/data.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    done = here(standing, "verify", "recipe.toml", "--json")
    assert done.code == 3
    assert [set(entry) for entry in done.told["damaged"]] == [{"path", "why"}]
    assert done.told["damaged"][0]["path"] == str(file.parent)


def test_init_writes_a_recipe_and_says_what_next(world: World, here: Here) -> None:
    done = here(world, "init", "model", "domain", "-o", "mine.toml")
    assert (done.code, done.out) == (0, "mine.toml is written; next: dapt plan mine.toml\n")
    assert here(world, "plan", "mine.toml").code == 0


def test_a_run_with_nothing_to_do_says_so_and_starts_no_server(standing: World, here: Here) -> None:
    done = here(standing, "run", "recipe.toml", "--until", "corpus", "--json")
    assert done.code == 0
    assert done.err.startswith("tiny: nothing to do, all ")
    assert done.told["stages"]["packing"]["hit"] == 3
    assert all(tally["computed"] == 0 for tally in done.told["stages"].values())
    assert not (standing.store / "prefect").exists()


def test_a_failed_shard_is_named_and_the_others_are_made(world: World, api: Api) -> None:
    cut = world.folder / "domain" / "1.jsonl.gz"
    cut.write_bytes(gzip.compress((world.folder / "domain" / "1.jsonl").read_bytes())[:-1000])
    (world.folder / "domain" / "1.jsonl").unlink()
    files = 'download.files=["domain/*.jsonl*"]'
    words = ["run", "recipe.toml", "--until", "corpus", "--json", "--set", files]
    done = dapt(world, *words, PREFECT_API_URL=api.url)
    assert done.code == 1
    assert is_clean(done)
    (failure,) = done.told["failed"]
    assert set(failure) == {"stage", "shard", "error"}
    assert failure["stage"] == "download"
    assert str(cut) in failure["error"]
    assert done.told["stages"]["download"]["failed"] == 1
    assert done.told["stages"]["dedup"]["waiting"] >= 1
    assert "wait for them; run again to redo just these" in done.err
    assert made(world, "signatures") >= 2, "shards behind a failed one are signed meanwhile"
    told = dapt(world, "status", "recipe.toml", "--json", "--set", files).told
    assert [(f["stage"], f["shard"]) for f in told["failed"]] == [("download", failure["shard"])]


def test_whatever_a_shard_fails_of_is_told_with_its_name(world: World, api: Api) -> None:
    env = {"BREAK": "tokenization 00001", "PREFECT_API_URL": api.url}
    done = dapt(world, "run", "recipe.toml", "--until", "corpus", **env)
    assert (done.code, done.out) == (1, "")
    assert "error: tokenization shard 00001: KeyError: 'nobody expected this'" in done.err
    assert is_clean(done)


def test_sources_that_hold_too_little_are_told_with_both_numbers(standing: World, api: Api) -> None:
    budget = 'budget.milestones=["5K", "90K"]'
    words = ["run", "recipe.toml", "--until", "corpus", "--json", "--set", budget]
    done = dapt(standing, *words, PREFECT_API_URL=api.url)
    assert done.code == 1
    assert is_clean(done)
    assert "the sources hold 15," in done.told["error"]
    assert "the milestone 90K asks for 90,000" in done.told["error"]
    assert [milestone["budget"] for milestone in done.told["milestones"]] == [5000]
    assert done.told["stages"]["packing"]["computed"] == 1


def test_a_damaged_store_is_exit_3_named_and_mended_by_the_next_run(standing: World, api: Api) -> None:
    path = standing.resolve().chains["domain"].shards[0].nodes["download"].path
    file = standing.store / path / "data.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    words = ["run", "recipe.toml", "--until", "corpus", "--json", "--set", "filtering.min_lines=4"]
    done = dapt(standing, *words, PREFECT_API_URL=api.url)
    assert done.code == 3
    assert is_clean(done)
    assert str(file) in done.told["error"]
    again = dapt(standing, *words, PREFECT_API_URL=api.url)
    assert again.code == 0
    assert again.told["stages"]["download"]["computed"] == 1


def test_an_api_that_does_not_answer_is_told(world: World) -> None:
    done = dapt(
        world, "run", "recipe.toml", "--until", "corpus", "--json", PREFECT_API_URL="http://127.0.0.1:9/api"
    )
    assert done.code == 1
    assert "http://127.0.0.1:9" in done.told["error"]
    assert "PREFECT_API_URL" in done.told["error"]
    assert is_clean(done)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_stops_at_once_is_told_cancelled_and_completes_later(
    world: World, api: Api, number: signal.Signals, code: int
) -> None:
    name = f"interrupted-{number.name.lower()}"
    words = ["run", "recipe.toml", "--until", "corpus", "--set", f"name={name}"]
    with started(world, *words, PREFECT_API_URL=api.url, SLOW="dedup 30") as process:
        await_that(lambda: made(world, "signatures") >= 1, "the run is in the middle of its stages")
        time.sleep(0.5)
        at = time.monotonic()
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - at < 5
    assert (process.returncode, out) == (code, "")
    assert "stopped; run the same command again to continue" in err
    assert "Traceback" not in err
    assert processes_of(world.folder) == []
    runs = api.flow_runs(f"adapt {name}", f"domain corpus of {name}")
    assert runs == {f"adapt {name}": ["Cancelled"], f"domain corpus of {name}": ["Cancelled"]}
    if number == signal.SIGTERM:
        return
    before = made(world, "download")
    again = dapt(world, *words, "--json", PREFECT_API_URL=api.url)
    assert again.code == 0
    assert again.told["stages"]["download"]["hit"] >= min(before, 3)
    assert api.flow_runs(f"adapt {name}")[f"adapt {name}"] == ["Cancelled", "Completed"]


def test_a_user_s_own_server_is_used_and_named(world: World, api: Api) -> None:
    write_jsonl(world.folder / "domain" / "0.jsonl", documents(3000, 20))
    done = dapt(
        world,
        "run",
        "recipe.toml",
        "--until",
        "corpus",
        "--json",
        "--set",
        "name=mine",
        PREFECT_API_URL=api.url,
    )
    assert done.code == 0
    assert f"watch it at {api.url.removesuffix('/api')}" in done.err
    assert not (world.store / "prefect").exists()
    assert api.flow_runs("adapt mine") == {"adapt mine": ["Completed"]}
    assert json.loads(done.out)["recipe"] == "mine"
