"""A model and its tokenizer, ready to be evaluated: float32, on the GPU where there is one.

Imported only by this room's subprocess.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama.configuration_llama import LlamaConfig

from tasks.store.errors import SourceError
from tasks.store.json import JSON
from tasks.store.models import read_json

_OF_MOBILELLM = ("auto_map", "model_type", "architectures", "share_embedding", "layer_sharing")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What both measurements need. `model` and `tokenizer` are transformers' own, which has no types."""

    model: Any
    tokenizer: Any
    device: str
    context: int
    """The most tokens the model reads at once."""
    eos: int

    def used(self) -> JSON:
        """What a result tells of it: `device`, and where that is the processor its `cpu_seconds` so far."""
        spent = {"cpu_seconds": round(time.process_time(), 3)} if self.device == "cpu" else {}
        return {"device": self.device, **spent}


def load(spec: JSON) -> Loaded:
    """Load what a job names as `model` and `tokenizer` (folders) and `eos_id`.

    No code of the folders is run.

    Raises:
        SourceError: there is no such model or tokenizer, or they do not fit each other.
    """
    folder = Path(spec["model"])
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            spec["tokenizer"], local_files_only=True, trust_remote_code=False
        )
        model, told = AutoModelForCausalLM.from_pretrained(
            folder,
            config=_config(folder),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as err:
        raise SourceError(
            f"{folder} with the tokenizer of {spec['tokenizer']} does not load: {_first_line(err)}; "
            "expected folders in Hugging Face layout"
        ) from err
    missing = sorted(told["missing_keys"])
    if missing:
        raise SourceError(
            f"the weights in {folder} lack {len(missing)} tensors of the model, {missing[0]} first"
        )
    width = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > width:
        raise SourceError(
            f"the tokenizer of {spec['tokenizer']} has {len(tokenizer)} entries, "
            f"the model {folder} knows {width}; take the tokenizer the model was trained with"
        )
    eos = int(spec["eos_id"])
    if tokenizer.eos_token_id is None:  # named elsewhere than in the tokenizer's own files
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(eos)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Loaded(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        device=device,
        context=int(getattr(model.config, "max_position_embeddings", None) or 2048),
        eos=eos,
    )


def _config(folder: Path) -> Any:
    """Its configuration; MobileLLM's own folders bring code for what is Llama with tied embeddings."""
    given = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if given.get("model_type") != "mobilellm":
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if given.get("layer_sharing"):
        raise SourceError(
            f"{folder}/config.json has layer_sharing, which is not supported; use a variant without"
        )
    fields = {key: value for key, value in given.items() if key not in _OF_MOBILELLM}
    return LlamaConfig(**{**fields, "tie_word_embeddings": bool(given.get("share_embedding", True))})


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
