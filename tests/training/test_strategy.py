"""What "auto" comes to on a device, and what the profiles set."""

import pytest
from pydantic import ValidationError

from tasks.store.errors import ResourceError
from tasks.store.tokens import size_told
from tasks.training.config import TrainingConfig
from tasks.training.memory import estimate_memory
from tasks.training.strategy import USABLE, candidates, memory_told, named, profile_needs, settle
from tests.training.test_training_memory import MOBILE_LLM_125M

GB = 10**9
MODEL = {**MOBILE_LLM_125M, "model_type": "llama"}
AUTO = TrainingConfig(base_model="x", zero_stage="auto")


def needed(config: TrainingConfig, ranks: int) -> int:
    return int(estimate_memory(MODEL, config, 2000, ranks)["device_bytes"])


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_auto_takes_the_first_that_fits_and_tells_the_sum(ranks: int) -> None:
    found = list(candidates(AUTO, ranks))
    assert named(found[0]) == "ZeRO-1"
    for before, one in zip([None, *found], found, strict=False):
        room = int(needed(one, ranks) / USABLE) + 1000
        chosen, told = settle(MODEL, AUTO, 2000, ranks, room)
        assert needed(chosen, ranks) <= room
        assert chosen in found[: found.index(one) + 1]
        assert f"{named(chosen)}: {size_told(needed(chosen, ranks))} (states " in told
        if before is not None and all(
            needed(other, ranks) > needed(one, ranks) for other in found[: found.index(one)]
        ):
            assert chosen == one


def test_auto_says_what_it_would_need_where_nothing_fits() -> None:
    with pytest.raises(
        ResourceError, match=r"ZeRO-3, gradient checkpointing, all states offloaded.*needs .*B \(states"
    ):
        settle(MODEL, AUTO, 2000, 4, GB // 4)


def test_auto_keeps_what_the_recipe_asks_for_beside_it() -> None:
    asked = TrainingConfig(base_model="x", zero_stage="auto", offload="all", gradient_checkpointing=True)
    assert {(one.zero_stage, one.offload, one.gradient_checkpointing) for one in candidates(asked, 2)} == {
        (3, "all", True)
    }


def test_a_named_stage_is_taken_as_it_is_whatever_the_device() -> None:
    config = TrainingConfig(base_model="x", zero_stage=2)
    assert settle(MODEL, config, 2000, 2, 1)[0] == config


def test_one_rank_has_nobody_to_share_gradients_with() -> None:
    assert 2 not in {one.zero_stage for one in candidates(AUTO, 1)}


def test_a_profile_sets_what_is_not_given_and_is_no_identity() -> None:
    paper = TrainingConfig.model_validate({"base_model": "x", "profile": "paper", "offload": "optimizer"})
    assert (paper.zero_stage, paper.offload, paper.gradient_checkpointing) == (3, "optimizer", True)
    fast = TrainingConfig.model_validate({"base_model": "x", "profile": "fast"})
    assert (fast.zero_stage, fast.offload, fast.gradient_checkpointing) == ("auto", "none", False)
    assert paper.identity() == fast.identity() == TrainingConfig(base_model="x").identity()
    assert TrainingConfig.model_validate(fast.model_dump(mode="json")) == fast
    with pytest.raises(ValidationError, match="profile"):
        TrainingConfig.model_validate({"base_model": "x", "profile": "slow"})


def test_the_profiles_needs_are_told_with_their_sum() -> None:
    needs = profile_needs(MODEL, TrainingConfig(base_model="x"), 2000, 2)
    assert needs["paper"]["strategy"] == "ZeRO-3, gradient checkpointing, all states offloaded"
    assert (needs["paper"]["compute"], needs["fast"]["compute"]) == (4, 3)
    assert needs["paper"]["device_bytes"] < needs["fast"]["device_bytes"]
    assert "872 MB on the host" in memory_told(needs["paper"])
