"""A training killed three times and moved from 2 ranks to 1 and back, beside its twin; and a larger budget.

    python -m tests.bench.killed_and_moved [--domain FILE...] [--general FILE...] [--keep FOLDER]

In: educational pages as the domain, one sequence in ten replayed from general text, a random Llama of 0.6M
parameters, ZeRO-3 in fp32. All of it through `dapt run`; each kill is SIGKILL to the command's process group,
a random while after a checkpoint. Out: how far the twins' losses and weights are apart, whether both saw the
same sequences, and what the larger budget trained by `extend` and by `restart`, and where its reports lie.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.flows.commands import DAPT, await_that, processes_of

ROOT = Path(__file__).parents[2]
RECIPE = """name = "moved"
seed = 17

[budget]
milestones = ["{first}"]

[download]
files = {domain}

[tokenization]
train_vocab_size = 2048

[packing]
sequence_length = 256

[held_out]
fraction = 0.02
max_documents = 60

[general]
files = {general}
replay_fraction = 0.1

[training]
base_model = "{base}"
learning_rate = 2e-3
global_batch_sequences = 12
precision = "fp32"
zero_stage = 3
checkpoint_every = 10
schedule = "{schedule}"
continuation = "{continuation}"
"""
FIRST, SECOND = "300K", "600K"
RANKS = (2, 1, 2)
"""Of the runs that are killed; the one that ends runs on as many as the last."""
CALM_S = 6.0
"""The longest wait after a checkpoint, before the kill."""


class Trial:
    """A folder with recipes and stores."""

    def __init__(self, folder: Path, domain: list[str], general: list[str]) -> None:
        self.folder = folder
        self._given = {"domain": json.dumps(domain), "general": json.dumps(general)}

    def recipe(self, *, continuation: str = "restart", schedule: str = "cosine") -> Path:
        """A recipe's file."""
        path = self.folder / f"{continuation}.toml"
        base = ROOT / "deployments" / "recipes" / "tiny-llama"
        given = {"base": base, "first": FIRST, "continuation": continuation, "schedule": schedule}
        path.write_text(RECIPE.format(**self._given, **given))
        return path

    def env(self, store: str, ranks: int) -> dict[str, str]:
        """Of a command on a store."""
        own = {"DAPT_STORE": str(self.folder / store), "DAPT_RANKS": str(ranks), "OMP_NUM_THREADS": "1"}
        return os.environ | own

    def run(self, store: str, ranks: int, recipe: Path, *words: str) -> dict[str, Any]:
        """`dapt run --json`, to its end."""
        command = (*DAPT, "run", str(recipe), "--json", *words)
        with (self.folder / "log.txt").open("a") as log:
            done = subprocess.run(
                command,
                env=self.env(store, ranks),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                check=False,
            )
        assert done.returncode == 0, f"exit {done.returncode}, see {self.folder}/log.txt"
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def kill(self, store: str, ranks: int, recipe: Path, generator: random.Random) -> int:
        """Run until a new checkpoint and a while longer, then SIGKILL; the last checkpoint's step."""
        before = self._steps(store)
        command = (*DAPT, "run", str(recipe))
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                command, env=self.env(store, ranks), stdout=log, stderr=log, start_new_session=True
            )
        await_that(lambda: self._steps(store) - before, "a new checkpoint", 300)
        time.sleep(generator.uniform(0, CALM_S))
        assert process.poll() is None, "it ended before it was killed: give it more tokens"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        await_that(lambda: not processes_of(self.folder / store), "its children are gone", 30)
        return max(self._steps(store))

    def _steps(self, store: str) -> set[int]:
        found = (self.folder / store / "work" / "training").glob("*/step-*/manifest.json")
        return {int(path.parent.name.removeprefix("step-")) for path in found}


def weights(checkpoint: str) -> torch.Tensor:
    """All of a model's weights, flat."""
    return torch.cat(
        [value.flatten().double() for value in load_file(f"{checkpoint}/model.safetensors").values()]
    )


def losses(checkpoint: str) -> list[float]:
    """Of every step."""
    manifest = json.loads(Path(checkpoint, "manifest.json").read_text())
    return [row[2] for row in manifest["details"]["curve"]["rows"]]


def seen(checkpoint: str, step: int) -> Any:
    """The documents of a step, in order, by `dapt lineage --step`."""
    command = (*DAPT, "lineage", checkpoint, "--step", str(step), "--json")
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["sequences"]


def twins(trial: Trial) -> None:
    """The same training, left alone and disturbed."""
    recipe, generator = trial.recipe(), random.Random(5)
    trial.run("calm", 2, recipe, "--until", "corpus")
    shutil.copytree(trial.folder / "calm", trial.folder / "moved")
    calm = trial.run("calm", 2, recipe)["milestones"][0]["checkpoint"]
    for ranks in RANKS:
        step = trial.kill("moved", ranks, recipe, generator)
        print(f"killed on {ranks} rank{'s' * (ranks > 1)}, its last checkpoint at step {step}", flush=True)
    moved = trial.run("moved", RANKS[-1], recipe)["milestones"][0]["checkpoint"]
    one, other = losses(calm), losses(moved)
    assert len(one) == len(other)
    steps = (1, len(one) // 2, len(one))
    same = all(seen(calm, step) == seen(moved, step) for step in steps)
    (base,) = (
        path.parent
        for path in (trial.folder / "calm" / "training").glob("*/*/manifest.json")
        if str(path.parent) != calm
    )
    start, end, again = weights(str(base)), weights(calm), weights(moved)
    apart = float((again - end).norm() / (end - start).norm())
    furthest = max(abs(a - b) for a, b in zip(one, other, strict=True))
    print(f"{len(one)} steps, loss {one[0]:.4f} -> {one[-1]:.4f}")
    print(
        f"the twins' losses differ by at most {furthest:.1e}, their weights by {apart:.1e} of the way trained"
    )
    print(f"the same documents in steps {', '.join(map(str, steps))}: {same}", flush=True)


def grown(trial: Trial) -> None:
    """A second milestone, by each continuation."""
    for continuation, schedule in (("extend", "wsd"), ("restart", "cosine")):
        recipe = trial.recipe(continuation=continuation, schedule=schedule)
        store = f"grown-{continuation}"
        shutil.copytree(trial.folder / "calm", trial.folder / store)
        first = trial.run(store, 2, recipe)["milestones"][0]["checkpoint"]
        before = Path(first, "model.safetensors").read_bytes()
        told = trial.run(store, 2, recipe, "--set", f'budget.milestones=["{FIRST}", "{SECOND}"]')
        assert Path(first, "model.safetensors").read_bytes() == before, "the first milestone's model changed"
        tokens = told["stages"]["training"]["tokens"]
        print(
            f"{continuation}, {schedule}: {FIRST} -> {SECOND} trained {tokens:,} tokens; the first model is"
        )
        print(f"as it was; the report: {told['report']}", flush=True)


def main() -> None:
    """Print what became of it."""
    data = Path(os.environ.get("DAPT_TEST_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--domain", nargs="*", default=[str(data / "edu" / "edu-00000.parquet")])
    parser.add_argument("--general", nargs="*", default=[str(data / "general" / "*.parquet")])
    parser.add_argument("--keep", type=Path, help="a folder for the stores; left out: one that goes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dapt-bench-") as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        trial = Trial(folder, args.domain, args.general)
        twins(trial)
        grown(trial)


if __name__ == "__main__":
    main()
