"""What a step came to and took, read while the next one is under way.

A value that is read from a GPU makes the host wait for it, and the GPU then waits for the host. So loss and
norm of a step are copied into pinned memory when it is queued, and looked at one step later; times are those
of events in the GPU's own queue. (One wait a step is left, DeepSpeed 0.19.8's own: it looks whether the norm
is finite before it steps.) On a CPU there is nothing to wait for, and the same code reads plain numbers.

MFU is the share of the devices' peak that the model's own arithmetic takes, in the convention of PaLM: see
`flops_per_token`.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.runtime.energy import Energy
from tasks.runtime.job import Job
from tasks.training.steps import LEARNED, MEASURED, Row

_AT = len(LEARNED) + MEASURED.index("at")
_EMIT_S = 0.5
_PEAKS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H200 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("L4", 121e12),
)
"""Dense bf16 FLOP/s by a part of the device's name, the first that fits; from the makers' data sheets."""


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its name, whatever the precision trained in; None: not known."""
    words = f" {device_name.replace('-', ' ')} "
    return next((peak for part, peak in _PEAKS if f" {part} " in words), None)


def flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """What one token costs to train, forward and backward: 6 N + 12 L d S.

    N are the parameters of matrices, a tied embedding counted once, as the head that it also is, one of its
    own not at all; L layers; d the width of all attention heads together; S the sequence's length, the causal
    mask not taken off. Recomputed activations do not count. For a dense model, before ZeRO takes it apart.

    Source: Chowdhery et al., PaLM, 2022, appendix B.
    """
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    if head is not embedding:
        matrices -= embedding.numel()
    config = model.config
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return float(6 * matrices + 12 * config.num_hidden_layers * width * sequence_length)


class Mark:
    """A moment in a device's work: on a GPU when it gets there, on a CPU now."""

    def __init__(self, device: torch.device) -> None:
        self._at = time.perf_counter()
        self._event: Any = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record()

    def seconds_since(self, earlier: "Mark") -> float:
        """Waits until the device has got here."""
        if self._event is None:
            return self._at - earlier._at
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1e3


@dataclass(frozen=True, slots=True)
class Queued:
    """A step whose numbers are on their way."""

    step: int
    """Steps done with it."""
    learning_rate: float
    values: Tensor
    """(1,) or (2,) float64 on the host, to be read after `ended`: mean loss, gradient norm where known."""
    began: Mark
    ended: Mark
    memory: tuple[int | None, int | None, int]
    """Bytes: allocated and reserved on the device, of the process on the host."""
    at: float


class Meter:
    """Measures the steps of one rank.

    Args:
        model: before ZeRO takes it apart.
        sequence_length: tokens.
        tokens: of a step, over all ranks.
        device: of this rank.
        ranks: all with a device like this one's.
    """

    def __init__(
        self, model: PreTrainedModel, *, sequence_length: int, tokens: int, device: torch.device, ranks: int
    ) -> None:
        peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self.tokens, self._device = tokens, device
        self._flops = flops_per_token(model, sequence_length)
        self._peak = None if peak is None else peak * ranks
        self._energy = None
        if int(os.environ.get("LOCAL_WORLD_SIZE", ranks)) == ranks:  # else it would be that of one machine
            self._energy = Energy(_gpus() if device.type == "cuda" else ())

    def mfu(self, tokens_per_s: float) -> float | None:
        """The share of the devices' peak; None: it is not known."""
        return None if self._peak is None else tokens_per_s * self._flops / self._peak

    def mark(self) -> Mark:
        """The moment up to which work is queued."""
        return Mark(self._device)

    def queued(
        self, step: int, learning_rate: float, *, loss: Tensor, norm: Tensor | float | None, began: Mark
    ) -> Queued:
        """A step that was queued whole; nothing is waited for.

        Args:
            step: steps done with it.
            learning_rate: of it.
            loss: () the mean over all that it saw, on the device.
            norm: of its gradient, on the device; None: not known (ZeRO 0).
            began: from `mark`, before it.
        """
        values = [loss.double()]
        if norm is not None:
            values.append(torch.as_tensor(norm, dtype=torch.float64, device=loss.device))
        # to pinned memory, and not before the device gets here
        on_host = torch.stack(values).to("cpu", non_blocking=True)
        return Queued(step, learning_rate, on_host, began, self.mark(), self._memory(), time.time())

    def row(self, queued: Queued) -> Row:
        """What a step came to and took: `LEARNED` and `MEASURED` of `steps.py`."""
        speed = self.tokens / max(1e-9, queued.ended.seconds_since(queued.began))
        loss, norm = (*queued.values.tolist(), None)[:2]
        learned = [queued.step, queued.step * self.tokens, loss, queued.learning_rate, norm]
        energy = self._energy.joules() if self._energy else (None, None)
        return [*learned, speed, self.mfu(speed), *queued.memory, queued.at, *energy]

    def _memory(self) -> tuple[int | None, int | None, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        if self._device.type != "cuda":
            return None, None, resident
        allocated = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return allocated, torch.cuda.memory_reserved(self._device), resident


def _gpus() -> list[str]:
    """Those that the ranks see, as NVML names them."""
    return [f"GPU-{torch.cuda.get_device_properties(n).uuid}" for n in range(torch.cuda.device_count())]


class Teller:
    """Tells the parent how far a training is, twice a second at most, and of its last step."""

    def __init__(self, job: Job, meter: Meter, *, start: int, steps: int) -> None:
        self._job, self._meter, self._steps = job, meter, steps
        self._told, self._told_step, self._told_at = time.perf_counter(), start, time.time()
        self._first: tuple[float, int] | None = None

    def tell(self, row: Row) -> None:
        """Of a step; its speed is that since the step told last, checkpoints and all.

        Steps are read later than they end, the last two at once: speed goes by when they ended. What is left
        is told by the mean of all steps but the first, which compiles, warms up and reads.
        """
        step, now = int(row[0] or 0), time.perf_counter()
        began, first = self._first = self._first or (now, step)
        if step < self._steps and now - self._told < _EMIT_S:
            return
        at = float(row[_AT] or 0)
        speed = (step - self._told_step) * self._meter.tokens / max(1e-9, at - self._told_at)
        left = round((self._steps - step) * (now - began) / (step - first), 1) if step > first else None
        self._told, self._told_step, self._told_at = now, step, at
        _, _, loss, learning_rate, norm, *_ = row
        word = {
            "step": step,
            "steps": self._steps,
            "loss": loss,
            "learning_rate": learning_rate,
            "grad_norm": norm,
            "tokens_per_s": round(speed, 1),
            "mfu": self._meter.mfu(speed),
            "eta_s": left,
        }
        self._job.emit({name: value for name, value in word.items() if value is not None})
