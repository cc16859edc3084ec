"""A model and its tokenizer, ready to be evaluated: float32, on the GPU where there is one.

Imported only by this room's subprocess.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tasks.store.config import JSON
from tasks.store.errors import SourceError

_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What both measurements need. `model` and `tokenizer` are transformers' own, which has no types."""

    model: Any
    tokenizer: Any
    device: str
    context: int
    """The most tokens the model reads at once."""
    eos: int


def load(spec: JSON) -> Loaded:
    """Load what a job names as `model` and `tokenizer` (folders), `eos_id` and `seed`.

    Raises:
        SourceError: there is no such model or tokenizer, or they do not fit each other.
    """
    folder = Path(spec["model"])
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(spec["tokenizer"], local_files_only=True)
        model = _model(folder, config, int(spec["seed"]))
    except (OSError, ValueError, KeyError) as err:
        raise SourceError(
            f"{folder} with the tokenizer of {spec['tokenizer']} does not load: {_first_line(err)}; "
            "expected folders in Hugging Face layout"
        ) from err
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
        context=int(getattr(config, "max_position_embeddings", None) or 2048),
        eos=eos,
    )


def _model(folder: Path, config: Any, seed: int) -> Any:
    if any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
