"""Trainings of a tiny model in a store: what the tests of real trainings share."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from tasks.runtime.progress import Progress, listening
from tasks.store.manifest import Manifest
from tasks.store.models import resolve_model
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import build_node
from tasks.training.config import Files, TrainingConfig, base_node, how_of, node, reference_node
from tasks.training.reference import build_reference
from tasks.training.run import build_base, build_training, work_folder

MILESTONES = (100, 250)
SEED = 7
BATCH = 12


class Killed(Exception):
    """Stands for a kill: the processes' group gets SIGKILL."""


class Trial:
    """A store with corpora and a base, in which trainings are run."""

    def __init__(
        self, root: Path, folder: Path, make_corpus: Callable[[Store, int], Node], tokenizer: Files
    ) -> None:
        self.store = Store(str(root))
        self.corpora = [make_corpus(self.store, count) for count in MILESTONES]
        self.tokenizer = tokenizer
        model = resolve_model(str(folder), folder=folder, weights=True)
        self.base = base_node(seed=SEED, model=Files.of_base(model), tokenizer=tokenizer)
        build_node(self.store, self.base, build_base, room="tasks.training", shard="base")

    def references(self, config: TrainingConfig) -> list[Node]:
        """The base's own losses on the last corpus' shards, scored where a training selects tokens."""
        if config.selective is None:
            return []
        base = Files.of_node(self.base)
        made = [
            reference_node(
                shard["path"],
                model=base.identity,
                reads=base.reads,
                precision=config.precision,
                document_mask=config.document_mask,
            )
            for shard in self.corpora[-1].reads["shards"]
        ]
        for number, one in enumerate(made):
            build_node(self.store, one, build_reference, room="tasks.training", shard=str(number))
        return made

    def node(self, **fields: Any) -> tuple[Node, TrainingConfig]:
        settings = {"precision": "fp32", "learning_rate": 1e-2, "checkpoint_every": 10} | fields
        config = TrainingConfig(base_model="tiny", global_batch_sequences=BATCH, **settings)
        made = node(
            config,
            seed=SEED,
            base=Files.of_node(self.base),
            tokenizer=self.tokenizer,
            corpora=self.corpora,
            references=self.references(config),
        )
        return made, config

    def train(self, ranks: int, *, machines: int = 1, **fields: Any) -> tuple[Node, Manifest]:
        """Train to the larger milestone, with so many ranks a machine."""
        made, config = self.node(**fields)
        how = how_of(config, ranks, machines)
        manifest, _ = build_node(
            self.store, made, build_training, room="tasks.training", shard="8000", how=how
        )
        return made, manifest

    def elsewhere(self, root: str) -> "Trial":
        """The same on another store: corpora and base are copied, what was trained is not."""
        other = copy.copy(self)
        other.store = Store(root)
        for stage in ("packing", "corpus", self.base.path):
            place = self.store.local_path(stage)
            for file in sorted(place.rglob("*")):
                if file.is_file() and not file.name.startswith("."):
                    name = f"{stage}/{file.relative_to(place)}"
                    other.store.write(name, file.read_bytes())
        return other

    def resume_from(self, made: Node, checkpoint: Path | None) -> Path:
        """Take back a finished training, to begin again from one of its checkpoints, or from nothing."""
        self.store.remove(made.path)
        work = work_folder(self.store, made.fingerprint)
        shutil.rmtree(work)
        work.mkdir()
        if checkpoint is not None:
            shutil.copytree(checkpoint, work / checkpoint.name)
        return work

    def weights(self, made: Node) -> dict[str, torch.Tensor]:
        return load(self.store.read(f"{made.path}/model.safetensors"))

    def losses(self, made: Node) -> list[list[float]]:
        rows = json.loads(self.store.read(f"{made.path}/losses.json"))["rows"]
        assert isinstance(rows, list)
        return rows


@contextmanager
def killed_after(step: int) -> Iterator[None]:
    """Kill the training once it has told of a step."""

    def hear(progress: Progress) -> None:
        if progress.stage == "training" and progress.done >= step:
            raise Killed

    with listening(hear), pytest.raises(Killed):
        yield


@dataclass(frozen=True)
class Calm:
    """A training that nothing disturbed."""

    made: Node
    manifest: Manifest
    weights: dict[str, torch.Tensor]
    losses: list[list[float]]
    halfway: Path


def undisturbed(trial: Trial, ranks: int, keep: Path, **fields: Any) -> Calm:
    made, manifest = trial.train(ranks, **fields)
    halfway = work_folder(trial.store, made.fingerprint) / "step-10"
    kept = Path(shutil.copytree(halfway, keep / halfway.name))
    return Calm(made, manifest, trial.weights(made), trial.losses(made), kept)
