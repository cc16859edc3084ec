import pytest

from tasks.training.config import TrainingConfig
from tasks.training.memory import estimate_memory, parameter_count

MOBILE_LLM_125M = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 32000,
    "tie_word_embeddings": True,
}
SMOLLM2_135M = {**MOBILE_LLM_125M, "vocab_size": 49152}


def test_parameters_of_known_models_are_counted_exactly() -> None:
    assert parameter_count(MOBILE_LLM_125M) == 124_635_456
    assert parameter_count(SMOLLM2_135M) == 134_515_008


def test_model_states_are_shared_as_the_zero_stage_says() -> None:
    def states(stage: int, ranks: int) -> list[int]:
        config = TrainingConfig(base_model="x", zero_stage=stage)
        told = estimate_memory(MOBILE_LLM_125M, config, 2000, ranks)
        return [told[f"{part}_bytes"] // 124_635_456 for part in ("weights", "gradients", "optimizer")]

    assert states(1, 4) == [2, 4, 3]
    assert states(2, 4) == [2, 1, 3]
    assert states(3, 2) == [1, 2, 6]


def test_activations_of_mobilellm_are_about_20_kb_a_token_and_layer() -> None:
    told = estimate_memory(MOBILE_LLM_125M, TrainingConfig(base_model="x", micro_batch=80), 2000, 1)
    assert told["activations_bytes"] / (80 * 2000 * 30) == pytest.approx(20_000, rel=0.2)
    assert told["logits_bytes"] == 80 * 2000 * 32000 * 12


def test_offload_moves_bytes_to_the_host_and_checkpointing_drops_activations() -> None:
    plain = estimate_memory(MOBILE_LLM_125M, TrainingConfig(base_model="x"), 2000, 1)
    moved = estimate_memory(MOBILE_LLM_125M, TrainingConfig(base_model="x", offload="all"), 2000, 1)
    assert moved["host_bytes"] == plain["optimizer_bytes"] + plain["weights_bytes"]
    assert moved["device_bytes"] + moved["host_bytes"] == plain["device_bytes"]
    less = estimate_memory(
        MOBILE_LLM_125M, TrainingConfig(base_model="x", gradient_checkpointing=True), 2000, 1
    )
    assert less["activations_bytes"] < plain["activations_bytes"] / 8


def test_the_document_mask_is_one_for_all_layers() -> None:
    plain = TrainingConfig(base_model="x", micro_batch=80)
    masked = plain.model_copy(update={"document_mask": True})
    none, some = (estimate_memory(MOBILE_LLM_125M, one, 2000, 1) for one in (plain, masked))
    assert none["mask_bytes"] == 0
    assert some["mask_bytes"] == 80 * 2000**2 * (2 + 2)  # bf16, and two booleans while it is made
    assert some["device_bytes"] == none["device_bytes"] + some["mask_bytes"]


def test_a_plain_heads_logits_never_stand_whole() -> None:
    config = TrainingConfig(base_model="x", micro_batch=80)
    plain, other = (
        estimate_memory({**MOBILE_LLM_125M, "model_type": kind}, config, 2000, 1)["logits_bytes"]
        for kind in ("llama", "gpt_neox")
    )
    assert plain == 2 * 256 * 2**20
    assert other == 80 * 2000 * 32000 * 12
