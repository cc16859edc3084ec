"""A causal language model from a folder: fp32, no code of the folder's is run, no pickle is unpickled.

MobileLLM's own folders say model_type "mobilellm" and bring their code. The model is Llama's with tied
embeddings (logits equal to 3e-5 with random weights, transformers 5.23), so it is loaded as one. Its
layer-sharing variants run each block twice and are refused.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.configuration_llama import LlamaConfig

from tasks.store.errors import SourceError
from tasks.store.models import read_json

_REMOTE = ("auto_map", "model_type", "architectures", "share_embedding", "layer_sharing")


def model_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a model's folder.

    Raises:
        SourceError: it is of a kind that transformers does not know by itself.
    """
    given = read_json(folder / "config.json")
    if given.get("model_type") == "mobilellm":
        if given.get("layer_sharing"):
            raise SourceError(
                f"{folder}/config.json has layer_sharing (a MobileLLM-LS model), which is refused; use the "
                "variant without"
            )
        fields = {key: value for key, value in given.items() if key not in _REMOTE}
        return LlamaConfig(**{**fields, "tie_word_embeddings": bool(given.get("share_embedding", True))})
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except ValueError as err:
        raise SourceError(f"{folder}/config.json: {str(err).splitlines()[0]}") from err


def load_model(folder: Path) -> PreTrainedModel:
    """A folder's model with its weights, fp32.

    Raises:
        SourceError: weights are missing for parts of it.
    """
    model, told = AutoModelForCausalLM.from_pretrained(
        folder,
        config=model_config(folder),
        dtype=torch.float32,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    missing = sorted(told["missing_keys"])
    if missing:
        raise SourceError(
            f"the weights in {folder} lack {len(missing)} tensors of the model, {missing[0]} first"
        )
    return model


def initialised_model(folder: Path, seed: int) -> PreTrainedModel:
    """A model with the weights that its own initialisation draws from a seed."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(model_config(folder), dtype=torch.float32)


def load_weights(model: PreTrainedModel, weights: Path) -> None:
    """Set all parameters from a checkpoint's file, which has tied ones once."""
    told = model.load_state_dict(load_file(weights), strict=False)
    parameters = {name for name, _ in model.named_parameters()}
    absent = parameters & set(told.missing_keys)
    assert not absent, f"{weights} lacks {absent}"
    assert not told.unexpected_keys, f"{weights} has {told.unexpected_keys}"


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Have each decoder layer compiled when it is first run: one graph serves all, since they are alike.

    The layers alone, not the model: that compiles in one layer's time, and leaves ZeRO-3's hooks between them
    and the chunked loss as they are. Results are equal up to rounding.

    Args:
        model: before DeepSpeed takes it.
        backend: of `torch.compile`.

    Raises:
        SourceError: the model is of a kind whose layers are not known.
    """
    # what transformers wraps for gradient checkpointing are the decoder layers of every model that has them
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        kind = model.config.model_type
        raise SourceError(f"training.compile=true: {kind} has no decoder layers to compile; set it to false")
    for layer in layers:
        layer.compile(backend=backend)


def save_model(model: PreTrainedModel, base: Path, folder: Path) -> None:
    """Write a model in Hugging Face layout, with the base's generation config where it has one."""
    shutil.rmtree(folder, ignore_errors=True)
    model.config.use_cache = True
    model.save_pretrained(folder)
    given = base / "generation_config.json"
    if given.exists():
        shutil.copyfile(
            given, folder / given.name
        )  # as it is: some published ones do not pass save_pretrained
