"""How much memory a training needs, from config.json alone: an estimate, told as one.

Model states are counted exactly from the parameter count. Activations are counted by the tensors that a
Llama block keeps for its backward pass (about 20 KB a token and layer for MobileLLM-125M in bf16). A plain
head's loss is formed a few rows at a time (`loss.py`); any other's by 12 bytes a token and vocabulary entry:
its logits, their fp32 copy and their gradient. Attention is taken to be of the kind that stores no score
matrix; the document mask is one for all layers (`document.py`). Allocator overhead and communication buffers
are not in it.
"""

from tasks.store.json import JSON
from tasks.training.config import TrainingConfig

PLAIN_HEADS = frozenset({"llama", "mobilellm", "mistral", "qwen2", "qwen3", "smollm3"})
"""Models whose logits are the last hidden state times the output embedding, and nothing more."""
HEAD_CHUNK_BYTES = 256 << 20
"""fp32 logits of a plain head at once on a GPU: large enough to keep it busy. On a CPU less."""
_HEAD_BYTES = 12
_BOOLEANS = 2
"""Of each pair of tokens, while the document mask is made."""


def parameter_count(model: JSON) -> int:
    """Parameters of a Llama-like model, by its config.json; tied embeddings count once."""
    hidden, vocab, layers, ffn = (
        int(model[key]) for key in ("hidden_size", "vocab_size", "num_hidden_layers", "intermediate_size")
    )
    heads = int(model["num_attention_heads"])
    head = int(model.get("head_dim") or hidden // heads)
    keys = int(model.get("num_key_value_heads") or heads) * head
    block = 2 * hidden * heads * head + 2 * hidden * keys + 3 * hidden * ffn + 2 * hidden
    if model.get("attention_bias"):
        block += heads * head + 2 * keys + hidden
    if model.get("mlp_bias"):
        block += 2 * ffn + hidden
    tied = bool(model.get("tie_word_embeddings", False))
    return vocab * hidden * (1 if tied else 2) + layers * block + hidden


def sequence_bytes(model: JSON, config: TrainingConfig, sequence_length: int) -> tuple[int, int, int]:
    """Bytes that one sequence needs: activations, mask, and logits (a plain head's never stand whole)."""
    hidden, layers, ffn = (
        int(model[key]) for key in ("hidden_size", "num_hidden_layers", "intermediate_size")
    )
    heads = int(model["num_attention_heads"])
    head = int(model.get("head_dim") or hidden // heads)
    keys = int(model.get("num_key_value_heads") or heads) * head
    width = 2 if config.precision == "bf16" else 4
    block = (8 * hidden + 2 * keys + 4 * ffn) * width
    kept = layers * hidden * width + block if config.gradient_checkpointing else layers * block
    mask = sequence_length * (width + _BOOLEANS) if config.document_mask else 0
    logits = 0 if model.get("model_type") in PLAIN_HEADS else _logits_bytes(model, sequence_length)
    return kept * sequence_length, mask * sequence_length, logits


def _logits_bytes(model: JSON, tokens: int) -> int:
    return _HEAD_BYTES * int(model["vocab_size"]) * tokens


def estimate_memory(model: JSON, config: TrainingConfig, sequence_length: int, ranks: int) -> JSON:
    """Bytes that a rank needs, by what for.

    Args:
        model: config.json of the base.
        config: of the training; a micro_batch of 0 is told for one sequence, to be scaled.
        sequence_length: tokens.
        ranks: that share what ZeRO shares.

    Returns:
        `parameters` (a count), then bytes: `weights_bytes`, `gradients_bytes`, `optimizer_bytes`,
        `activations_bytes`, `mask_bytes`, `logits_bytes`, `device_bytes` (their sum on the device),
        `host_bytes` (offloaded), and `micro_batch`.
    """
    assert config.zero_stage != "auto", "settled by strategy.py"
    count, stage = parameter_count(model), config.zero_stage
    micro = max(1, config.micro_batch)
    weights = count * (2 if config.precision == "bf16" else 4) // (ranks if stage == 3 else 1)
    gradients = count * 4 // (ranks if stage >= 2 else 1)
    # fp32 master and both moments of AdamW; without ZeRO the fp32 weights are their own master
    optimizer = count * (8 if stage == 0 else 12) // (ranks if stage >= 1 else 1)
    activations, mask, logits = (micro * part for part in sequence_bytes(model, config, sequence_length))
    # in chunks: fp32 logits, and as much again for their 16-bit copy and gradient
    logits = logits or min(_logits_bytes(model, micro * sequence_length), 2 * HEAD_CHUNK_BYTES)
    host = (optimizer if config.offload != "none" else 0) + (weights if config.offload == "all" else 0)
    return {
        "parameters": count,
        "weights_bytes": weights,
        "gradients_bytes": gradients,
        "optimizer_bytes": optimizer,
        "activations_bytes": activations,
        "mask_bytes": mask,
        "logits_bytes": logits,
        "device_bytes": weights + gradients + optimizer + activations + mask + logits - host,
        "host_bytes": host,
        "micro_batch": micro,
    }
