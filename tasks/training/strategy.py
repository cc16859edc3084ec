"""How a training is spread over devices: the named profiles, and what `zero_stage = "auto"` comes to.

What computes least goes first: sharing optimizer states, then gradients, then parameters costs messages;
recomputing activations costs a third more compute; moving states to the host costs its bus at every step.
`auto` takes the first of these that fits a rank's device by the estimate of `memory.py`, and keeps what the
recipe itself asks for beside it (`offload`, `gradient_checkpointing`).
"""

from collections.abc import Iterator

from tasks.store.errors import ResourceError
from tasks.store.json import JSON
from tasks.store.tokens import size_told
from tasks.training.config import PROFILES, TrainingConfig
from tasks.training.memory import estimate_memory

USABLE = 0.85
"""Of a device's memory; the rest is for communication buffers and fragmentation, which no estimate has."""

_SPREADS: tuple[JSON, ...] = (
    *({"zero_stage": stage} for stage in (1, 2, 3)),
    *({"zero_stage": stage, "gradient_checkpointing": True} for stage in (1, 2, 3)),
    {"zero_stage": 3, "gradient_checkpointing": True, "offload": "optimizer"},
    {"zero_stage": 3, "gradient_checkpointing": True, "offload": "all"},
)
"""What costs least first."""
_OFFLOADS = ("none", "optimizer", "all")


def candidates(config: TrainingConfig, ranks: int) -> Iterator[TrainingConfig]:
    """What `auto` may come to, the cheapest first; the config itself where it names its stage."""
    if config.zero_stage != "auto":
        yield config
        return
    for spread in _SPREADS:
        if ranks == 1 and spread["zero_stage"] == 2:
            continue  # one rank shares with nobody
        offload = max(config.offload, spread.get("offload", "none"), key=_OFFLOADS.index)
        if offload == "all" and spread["zero_stage"] < 3:
            continue
        checkpointing = config.gradient_checkpointing or spread.get("gradient_checkpointing", False)
        fields = {"offload": offload, "gradient_checkpointing": checkpointing}
        yield config.model_copy(update={**spread, **fields})


def settle(
    model: JSON, config: TrainingConfig, sequence_length: int, ranks: int, device_bytes: int
) -> tuple[TrainingConfig, str]:
    """Choose what `auto` comes to on a device.

    Args:
        model: config.json of the base.
        config: of the training.
        sequence_length: tokens.
        ranks: that share what ZeRO shares.
        device_bytes: memory of a rank's device.

    Returns:
        The config with its stage, and the choice in words: with the sum that it rests on.

    Raises:
        ResourceError: nothing fits; tells what the leanest needs.
    """
    room = int(device_bytes * USABLE)
    for found in candidates(config, ranks):
        need = estimate_memory(model, found, sequence_length, ranks)
        if need["device_bytes"] <= room or config.zero_stage != "auto":
            return found, f"{named(found)}: {memory_told(need)} of {size_told(device_bytes)}"
    raise ResourceError(
        f"zero_stage='auto': {named(found)}, the leanest there is, needs {memory_told(need)} on each device "
        f"of {size_told(device_bytes)}; take more or larger devices, a smaller model or shorter sequences"
    )


def named(config: TrainingConfig) -> str:
    """A strategy as people call it."""
    more = ["gradient checkpointing"] if config.gradient_checkpointing else []
    more += {"none": [], "optimizer": ["optimizer offloaded"], "all": ["all states offloaded"]}[
        config.offload
    ]
    return ", ".join([f"ZeRO-{config.zero_stage}", *more])


def memory_told(need: JSON) -> str:
    """A rank's memory as a sum."""
    states = need["weights_bytes"] + need["gradients_bytes"] + need["optimizer_bytes"] - need["host_bytes"]
    parts = {"states": states, "activations": need["activations_bytes"]}
    parts |= {"mask": need["mask_bytes"]} if need["mask_bytes"] else {}
    parts["logits"] = need["logits_bytes"]
    added = " + ".join(f"{name} {size_told(value)}" for name, value in parts.items())
    host = f", {size_told(need['host_bytes'])} on the host" if need["host_bytes"] else ""
    return f"{size_told(need['device_bytes'])} ({added}{host})"


def profile_needs(model: JSON, config: TrainingConfig, sequence_length: int, ranks: int) -> JSON:
    """What each profile would need of this training, and how many times the compute of the other: the plan's.

    Returns:
        By name: the estimate of `estimate_memory`, `strategy` in words, and `compute`, the passes through the
        model that a token takes (3; 4 with gradient checkpointing).
    """
    found: JSON = {}
    for name, fields in PROFILES.items():
        chosen = next(candidates(config.model_copy(update=fields), ranks))
        need = estimate_memory(model, chosen, sequence_length, ranks)
        compute = 4 if chosen.gradient_checkpointing else 3
        found[name] = {"strategy": named(chosen), **need, "compute": compute}
    return found
