"""The weights that a training keeps of steps on its way."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file
from transformers import AutoModelForCausalLM

from tasks.training.run import work_folder
from tests.training.trial import Calm, Trial, killed_after

pytestmark = pytest.mark.train

EVAL_AT = (0, 0.06, 0.1, 0.5, 1)
"""Of 20 steps: the base, 2 (twice), 10 and the final model."""


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_training_has_the_models_of_its_steps_as_if_never(plain: Trial, calm: Calm) -> None:
    """And is otherwise the training that keeps none: `calm` went through the same steps."""
    made, _ = plain.node(eval_at=EVAL_AT)
    work = work_folder(plain.store, made.fingerprint)
    with killed_after(5):
        plain.train(2, checkpoint_every=4, eval_at=EVAL_AT)
    second = load_file(work / "kept" / "step-000002.safetensors")
    again, manifest = plain.train(2, checkpoint_every=4, eval_at=EVAL_AT)
    assert again == made
    assert manifest.how["resumed_from_step"] >= 4  # the kill may come some steps late
    assert plain.losses(made) == calm.losses
    assert same(plain.weights(made), calm.weights)

    names = {entry.name for entry in manifest.files if entry.name.startswith("at/")}
    folders = {str(Path(name).parent) for name in names}
    assert folders == {"at/step-000002", "at/step-000010"}
    for folder, expected in (
        ("at/step-000002", second),
        ("at/step-000010", load_file(calm.halfway / "weights.safetensors")),
    ):
        assert f"{folder}/config.json" in names
        assert same(load(plain.store.read(f"{made.path}/{folder}/model.safetensors")), expected)
        model = AutoModelForCausalLM.from_pretrained(plain.store.address(f"{made.path}/{folder}"))
        assert same(dict(model.named_parameters()), expected)
