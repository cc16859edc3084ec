"""A world to keep promises in: sources, a base, recipes, and the command line on a store of one's own."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tasks.store.errors import DaptError
from tasks.store.json import JSON
from tasks.store.paths import Store
from tasks.store.shard import read_table

ROOT = Path(__file__).parents[2]
LENGTH = 64
SMALL, LARGE = 16_000, 48_000
STAGES = ("download", "filtering", "signatures", "dedup", "tokenization", "packing")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    body: JSON
    """The object of `--json`; empty when nothing was printed."""
    stderr: str

    @property
    def computed(self) -> dict[str, int]:
        """Nodes made, by stage, where any were."""
        return {s: t["computed"] for s, t in self.body["stages"].items() if t["computed"]}


@dataclass(frozen=True, slots=True)
class World:
    """Sources and a base in a folder; recipes and stores are made beside them."""

    folder: Path
    sources: Path
    base: Path
    server: str = ""
    """Address of a Prefect API that all runs share; empty: each starts its own."""

    def recipe(
        self, name: str = "tiny", *, budgets: Sequence[int] = (SMALL,), at: str = "", **sections: JSON
    ) -> Path:
        """Write a recipe; `sections` add or replace fields, `at` is the file's name where not `name`."""
        body: dict[str, JSON] = {
            "budget": {"milestones": list(budgets)},
            "download": {"files": [str(self.sources / "part-*")], "shard_bytes": "32KB"},
            "filtering": {"min_lines": 3},
            "dedup": {"threshold": 0.7},
            "held_out": {"fraction": 0.05},
            "packing": {"sequence_length": LENGTH},
            "training": {"base_model": str(self.base), "global_batch_sequences": 24},
        }
        for section, fields in sections.items():
            body[section] = body.get(section, {}) | fields
        lines = [f'name = "{name}"', "seed = 17"]
        for section, fields in body.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in fields.items())]
        path = self.folder / f"{at or name}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def environment(self, store: Path | str, **more: str) -> dict[str, str]:
        """What a run is told of where and how."""
        given = {"DAPT_STORE": str(store), "DAPT_WORKERS": "2", "DAPT_RANKS": "1", "HF_HUB_OFFLINE": "1"}
        if self.server:
            given["PREFECT_API_URL"] = self.server
        return given | {"PREFECT_HOME": str(self.folder / "prefect"), "NO_COLOR": "1"} | more

    def call(self, store: Path | str, *words: str | Path, **more: str) -> Done:
        """`dapt <words> --json` in this process, where Prefect is imported once."""
        from prefect import settings
        from typer.testing import CliRunner

        from flows.cli import app

        shared = {settings.PREFECT_API_URL: self.server} if self.server else {}
        with pytest.MonkeyPatch.context() as patch, settings.temporary_settings(shared):
            for name, value in self.environment(store, **more).items():
                patch.setenv(name, value)
            result = CliRunner().invoke(app, [*map(str, words), "--json"])
        error = result.exception
        if isinstance(error, DaptError):
            return Done(error.exit_code, _body(result.stdout), f"{result.stderr}error: {error}")
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Done(result.exit_code, _body(result.stdout), result.stderr)

    def run(self, store: Path | str, recipe: Path, *words: str, **more: str) -> Done:
        """Run the corpus leg, which must succeed."""
        done = self.call(store, "run", recipe, "--until", "corpus", *words, **more)
        assert done.code == 0, done.stderr
        return done

    def plan(self, store: Path | str, recipe: Path) -> JSON:
        """What a run would do."""
        done = self.call(store, "plan", recipe)
        assert done.code == 0, done.stderr
        return done.body

    def start(self, store: Path | str, *words: str | Path, **more: str) -> "subprocess.Popen[str]":
        """`dapt <words> --json` as a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.contracts.dapt", "--", *map(str, words), "--json"],
            cwd=ROOT,
            env=os.environ | self.environment(store, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call_process(self, store: Path | str, *words: str | Path, **more: str) -> Done:
        """The same, waited for."""
        with self.start(store, *words, **more) as process:
            stdout, stderr = process.communicate(timeout=300)
        return Done(process.returncode, _body(stdout), stderr)


def _body(stdout: str) -> JSON:
    found: JSON = json.loads(stdout) if stdout.strip() else {}
    return found


def nodes_of(plan: JSON, *stages: str) -> dict[tuple[str, str], JSON]:
    """A plan's nodes of some stages (none: all), by stage and shard."""
    return {(n["stage"], n["shard"]): n for n in plan["nodes"] if not stages or n["stage"] in stages}


def snapshot(store: Path, *stages: str) -> dict[str, str]:
    """sha256 of every data file of the data stages, by its path in the store."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for stage in stages or STAGES
        for path in sorted((store / stage).glob("*/*/data.parquet"))
    }


def manifests(store: Path, stage: str) -> dict[str, JSON]:
    """Every manifest of a stage, by its node's path."""
    found = sorted((store / stage).glob("*/*/manifest.json"))
    return {str(path.parent.relative_to(store)): json.loads(path.read_text()) for path in found}


def corpus_shards(milestone: JSON) -> list[JSON]:
    """`path` and `rows` of a milestone's packed shards."""
    body = json.loads((Path(milestone["corpus"]) / "manifest.json").read_text())
    shards: list[JSON] = body["shards"]
    return shards


def corpus_rows(store: Path, milestone: JSON) -> pa.Table:
    """A corpus' rows, all columns, in order."""
    tables = [
        read_table(Store(str(store)), shard["path"]).slice(0, shard["rows"])
        for shard in corpus_shards(milestone)
    ]
    return pa.concat_tables(tables).combine_chunks()


def conserve(store: Path) -> None:
    """Law 4 on every node that stands: by the manifests, by the tables, and from stage to stage."""
    root = Store(str(store))
    for stage in STAGES:
        for path, manifest in manifests(store, stage).items():
            lost = manifest["documents_in"] - manifest["documents_out"] - sum(manifest["dropped"].values())
            assert lost == 0, f"{path} lost {lost} documents"
            if stage in _VERDICTS:
                table = read_table(root, path, columns=["kept", "reason"])
                kept = pc.sum(table["kept"]).as_py() or 0
                reasons = Counter(reason for reason in table["reason"].to_pylist() if reason is not None)
                told = (manifest["documents_in"], manifest["documents_out"], +Counter(manifest["dropped"]))
                assert (table.num_rows, kept, reasons) == told
    for path, manifest in manifests(store, "tokenization").items():
        ids = read_table(root, path, columns=["input_ids"])["input_ids"].drop_null()
        assert pc.sum(pc.list_value_length(ids)).as_py() == manifest["tokens"]
    tokenized = {m["fingerprint"]: m for m in manifests(store, "tokenization").values()}
    for path, manifest in manifests(store, "packing").items():
        before = tokenized[manifest["inputs"]["tokenization"]]
        assert manifest["documents_in"] == before["documents_out"]
        leftover = manifest["details"]["leftover_tokens"]
        assert before["tokens"] + before["documents_out"] == manifest["tokens"] + leftover, (
            "one EOS a document"
        )
        rows = read_table(root, path, columns=["input_ids"])
        assert rows.num_rows * LENGTH == manifest["tokens"]


_VERDICTS = ("filtering", "dedup", "tokenization")


def processes_with(mark: str) -> list[str]:
    """Command lines of the live processes whose environment holds a mark, less this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
