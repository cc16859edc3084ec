"""A small real model: a two-layer Llama of random weights with a byte-level BPE, in Hugging Face layout."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.evaluation.config import EvaluatedModel
from tasks.store.models import resolve_model

EOS = "<|end|>"

TEXTS = [
    "The cell is the smallest unit of life. Question: which organelle holds the DNA? Answer: the nucleus.",
    "A force acts on a body; the body answers with an acceleration in proportion to the force.",
    "Le chat dort sur la chaise. Ça va? Ωμέγα, 漢字, emoji 🙂 and a tab\t.",
]


def tiny_model(folder: Path, *, context: int = 1024, seed: int = 0, scale: float = 1.0) -> Path:
    """Save one; the same seed gives the same weights. A larger `scale` makes a surer model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS).save_pretrained(folder)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=384,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    model.save_pretrained(folder)
    return folder


def evaluated_model(folder: Path) -> EvaluatedModel:
    """A saved one, as a recipe's base."""
    found = resolve_model(str(folder), folder=folder, weights=True)
    address = {"folder": str(found.folder), "reference": found.reference, "revision": found.revision}
    return EvaluatedModel(found.model_digest, address, found.tokenizer_digest, address, eos_id=0)
