"""Weights and AdamW moments in and out of a DeepSpeed engine, whole and by parameter name.

DeepSpeed's own checkpoints are one a rank and tied to the number of ranks and the ZeRO stage; its universal
ones need a conversion, and none exists for stage 0. Here each tensor is gathered whole, which any other
layout can take apart again: fp32 master weights and moments are copied bit for bit, the step is a number.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file

from tasks.training.checkpoint import PARTS, Checkpoint

Engine = Any
_MOMENTS = PARTS[1:]


def save_state(engine: Engine, writing: Path | None, parts: Sequence[str] = PARTS) -> None:
    """Write the parts of a checkpoint; every rank takes part, one writes.

    Args:
        engine: between two steps.
        writing: the folder, on the rank that writes; None on the others.
        parts: which.
    """
    for part in parts:
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in engine.module.named_parameters():
            whole = _gathered(engine, parameter, part)
            if writing is not None:
                # a copy: without ZeRO this is the live parameter, elsewhere a slice of a gather buffer
                tensors[name] = whole.detach().to("cpu", torch.float32, copy=True).contiguous()
        if writing is not None:
            save_file(tensors, writing / f"{part}.safetensors", metadata={"format": "pt"})


def _gathered(engine: Engine, parameter: Any, part: str) -> torch.Tensor:
    """A whole tensor, fp32; every rank takes part."""
    stage = engine.zero_optimization_stage()
    if stage == 0:
        whole = parameter if part == "weights" else engine.optimizer.state[parameter][part]
    elif stage == 3:
        owner = engine.optimizer
        whole = owner.get_full_hp_param(parameter, None if part == "weights" else part)
    else:
        whole = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
        found = _fragment(engine.optimizer.optimizer, parameter, part)
        if found is not None:
            fragment, start = found
            whole.narrow(0, start, fragment.numel()).copy_(fragment)
        dist.all_reduce(whole)
        whole = whole.view(parameter.shape)
    assert isinstance(whole, torch.Tensor)
    return whole


def _fragment(optimizer: torch.optim.Optimizer, parameter: Any, part: str) -> tuple[torch.Tensor, int] | None:
    """Stages 1 and 2: what this rank owns of a parameter, and where that starts in it; None: nothing."""
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    flat = optimizer.param_groups[mapping.param_group_index]["params"][0]
    owned = flat.data if part == "weights" else optimizer.state[flat][part]
    place = mapping.hp_fragment_address
    return owned.narrow(0, place.start, place.numel), int(mapping.lp_fragment_address.start)


def restore_state(engine: Engine, checkpoint: Checkpoint) -> None:
    """Set master weights, moments and AdamW's step; the module was loaded with the same weights."""
    optimizer = engine.optimizer if engine.zero_optimization_stage() == 0 else engine.optimizer.optimizer
    for flat, fused in _flat_partitions(engine, optimizer):
        step = torch.tensor(float(checkpoint.step), device=flat.device if fused else "cpu")
        optimizer.state[flat] = {"step": step, **{key: torch.zeros_like(flat) for key in _MOMENTS}}
    put = _PUT[engine.zero_optimization_stage()]
    for part in PARTS:
        with safe_open(checkpoint.part(part), framework="pt") as file:
            for name, parameter in engine.module.named_parameters():
                value: torch.Tensor = file.get_tensor(name)
                put(engine, optimizer, parameter, part, value)


def _flat_partitions(engine: Engine, optimizer: torch.optim.Optimizer) -> Iterator[tuple[torch.Tensor, bool]]:
    """The tensors that AdamW really steps on in this rank, and whether by its fused kernel."""
    fused = bool(optimizer.param_groups[0].get("fused"))
    if engine.zero_optimization_stage() == 3:
        yield from ((flat, fused) for flat in engine.optimizer.fp32_partitioned_groups_flat)
        return
    yield from ((flat, fused) for group in optimizer.param_groups for flat in group["params"])


def _put_whole(
    _engine: Engine, optimizer: torch.optim.Optimizer, parameter: torch.Tensor, part: str, value: torch.Tensor
) -> None:
    target = parameter.data if part == "weights" else optimizer.state[parameter][part]
    target.copy_(value)


def _put_fragment(
    _engine: Engine, optimizer: torch.optim.Optimizer, parameter: Any, part: str, value: torch.Tensor
) -> None:
    found = _fragment(optimizer, parameter, part)
    if found is not None:
        fragment, start = found
        fragment.copy_(value.flatten().narrow(0, start, fragment.numel()))


def _put_partition(
    engine: Engine, optimizer: torch.optim.Optimizer, parameter: Any, part: str, value: torch.Tensor
) -> None:
    """Stage 3: an equal part of each parameter, the last padded (`safe_set_full_*` fails on padding)."""
    owner = engine.optimizer
    group, start, count = owner.grad_position[owner.get_param_id(parameter)]
    flat = owner.fp32_partitioned_groups_flat[group]
    target = flat.data if part == "weights" else optimizer.state[flat][part]
    size = parameter.ds_tensor.ds_numel
    padded = torch.nn.functional.pad(value.flatten(), (0, size * dist.get_world_size() - value.numel()))
    target.narrow(0, start, count).copy_(padded.narrow(0, size * dist.get_rank(), size))


_PUT = {0: _put_whole, 1: _put_fragment, 2: _put_fragment, 3: _put_partition}
