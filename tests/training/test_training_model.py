import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.store.errors import SourceError
from tasks.training.loss import chunk_loss
from tasks.training.model import (
    compile_layers,
    initialised_model,
    load_model,
    load_weights,
    model_config,
    save_model,
)

pytestmark = pytest.mark.train


def test_a_base_is_a_function_of_the_seed(config_folder: Path) -> None:
    one, same, other = (initialised_model(config_folder, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_mobilellm_is_loaded_as_a_llama_with_tied_embeddings(config_folder: Path, tmp_path: Path) -> None:
    given = json.loads((config_folder / "config.json").read_text())
    remote = {
        "model_type": "mobilellm",
        "architectures": ["MobileLLMForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_mobilellm.MobileLLMConfig"},
        "share_embedding": True,
        "layer_sharing": False,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(given | remote))
    weights = initialised_model(config_folder, 1).state_dict()
    weights.pop("lm_head.weight")
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "model.safetensors")
    model = load_model(tmp_path)
    assert model.config.model_type == "llama"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, weights["model.embed_tokens.weight"])

    (tmp_path / "config.json").write_text(json.dumps(given | remote | {"layer_sharing": True}))
    with pytest.raises(SourceError, match="layer_sharing"):
        model_config(tmp_path)


def test_weights_that_lack_a_tensor_are_refused_by_its_name(config_folder: Path, tmp_path: Path) -> None:
    save_model(initialised_model(config_folder, 1), config_folder, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    weights.pop("model.norm.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"lack 1 tensors of the model, model\.norm\.weight"):
        load_model(tmp_path / "model")


def test_a_kind_of_model_that_needs_its_own_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody_knows", "vocab_size": 8}))
    with pytest.raises(SourceError, match="nobody_knows"):
        model_config(tmp_path)


def test_a_saved_model_has_the_weights_of_a_checkpoint(config_folder: Path, tmp_path: Path) -> None:
    model = initialised_model(config_folder, 1)
    changed = {name: value.detach() + 1 for name, value in model.named_parameters()}
    save_file(changed, tmp_path / "weights.safetensors")
    load_weights(model, tmp_path / "weights.safetensors")
    save_model(model, config_folder, tmp_path / "model")
    loaded = dict(load_model(tmp_path / "model").named_parameters())
    assert all(torch.equal(loaded[name], changed[name]) for name in changed)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own tracing looks there
def test_compiled_layers_are_one_graph_and_give_the_same_gradients(config_folder: Path) -> None:
    ids = torch.randint(64, (4, 32), generator=torch.Generator().manual_seed(1))
    plain, compiled = (initialised_model(config_folder, 1).train() for _ in range(2))
    for model in (plain, compiled):
        model.config.use_cache = False
        chunk_loss(model)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_layers(compiled, backend="aot_eager")
    losses = [model(input_ids=ids, labels=ids).loss for model in (plain, compiled)]
    for loss in losses:
        loss.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-6)
    pairs = zip(plain.parameters(), compiled.parameters(), strict=True)
    assert all(torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-6) for one, other in pairs)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "the two layers share it"
    assert not torch._dynamo.utils.counters["graph_break"]


def test_a_model_whose_layers_are_not_known_is_not_compiled(config_folder: Path) -> None:
    model = initialised_model(config_folder, 1)
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(SourceError, match=r"training\.compile=true: llama has no decoder layers"):
        compile_layers(model)
