"""A model, not a measurement: tokens/s on 1, 3 and 6 GPUs by ZeRO stage, beside what the paper tells.

    python -m tests.bench.model_scaling [--busy 0.061] [--gbs 20] [--micro-batch 80] [--accumulation 2]

A step computes 6 N + 12 L d S floating-point operations a token (PaLM, appendix B), a third more with
gradient checkpointing, and keeps the device's arithmetic busy at the given share (6.1 % is the paper's
4.6 % MFU with that third). By ring algorithms over links of the given GB/s a device it moves gradients once
(stage 1 and 2: reduce-scatter of 4 bytes a parameter, all-gather of the updated 16-bit parameters), or at
stage 3, in every micro-batch, the parameters before the forward and before the backward pass and the
gradients behind it. Offloading moves 16 bits of gradients out and parameters in, over the same links, once a
step. Nothing overlaps: a lower bound of the speed, at the given share.
"""

import argparse
from dataclasses import dataclass

from tasks.training.memory import parameter_count

MOBILE_LLM_125M = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 32000,
    "tie_word_embeddings": True,
}
SEQUENCE = 2000
PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12}
"""Dense bf16 operations a second, by the makers' data sheets."""
PAPER = {3: 12_346, 6: 11_574}
"""Tokens a second and GPU: 400M tokens in 3 h on 3 A100, 1B in 4 h on 6."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step takes on each of some GPUs."""

    tokens: int
    compute_s: float
    moved_bytes: float
    moved_s: float

    @property
    def tokens_per_s(self) -> float:
        """Of one GPU."""
        return self.tokens / (self.compute_s + self.moved_s)


def step_of(
    gpus: int,
    stage: int,
    *,
    peak: float,
    busy: float,
    gbs: float,
    micro_batch: int,
    accumulation: int,
    paper: bool,
) -> Step:
    """A step of the 125M model; `paper` adds gradient checkpointing and offloading."""
    count = parameter_count(MOBILE_LLM_125M)
    attention = 12 * MOBILE_LLM_125M["num_hidden_layers"] * MOBILE_LLM_125M["hidden_size"] * SEQUENCE
    tokens = micro_batch * accumulation * SEQUENCE
    compute = tokens * (6 * count + attention) * (4 / 3 if paper else 1) / (peak * busy)
    ring = (gpus - 1) / gpus
    parameters, gradients = 2 * count * ring, 4 * count * ring
    moved = accumulation * (2 * parameters + gradients) if stage == 3 else gradients + parameters
    moved += 4 * count / gpus if paper else 0
    return Step(tokens, compute, moved, moved / (gbs * 1e9))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=PEAK, default="A100")
    parser.add_argument("--busy", type=float, default=0.061, help="share of the peak while it computes")
    parser.add_argument(
        "--gbs", type=float, default=20.0, help="GB/s of a link: PCIe 4 about 20, NVLink 3 about 250"
    )
    parser.add_argument("--micro-batch", type=int, default=80)
    parser.add_argument("--accumulation", type=int, default=2)
    args = parser.parse_args()
    given = {
        "peak": PEAK[args.device],
        "busy": args.busy,
        "gbs": args.gbs,
        "micro_batch": args.micro_batch,
        "accumulation": args.accumulation,
    }
    print(f"modelled, {args.device} at {args.busy:.1%} of its peak, links of {args.gbs:g} GB/s, "
          f"{args.micro_batch} x {args.accumulation} sequences a GPU and step")  # fmt: skip
    columns = ("GPUs", "compute s", "GB moved", "moving s", "tokens/s", "of one")
    print(f"{'':22s}", *(f"{column:>10s}" for column in columns))
    for name, stage, paper in (
        ("ZeRO-1 or 2", 1, False),
        ("ZeRO-3", 3, False),
        ("ZeRO-3, as the paper", 3, True),
    ):
        alone = step_of(1, stage, paper=paper, **given).tokens_per_s
        for gpus in (1, 3, 6):
            step = step_of(gpus, stage, paper=paper, **given)
            told = (step.compute_s, step.moved_bytes / 1e9, step.moved_s)
            print(f"{name:22s} {gpus:10d}", *(f"{value:10.3f}" for value in told), end=" ")
            print(f"{step.tokens_per_s:10,.0f} {step.tokens_per_s / alone:10.1%}")
    three, six = (step_of(n, 3, paper=True, **given).tokens_per_s for n in (3, 6))
    print(f"from 3 to 6: {six / three:.1%} modelled, {PAPER[6] / PAPER[3]:.1%} in the paper "
          f"({PAPER[3]:,} and {PAPER[6]:,} tokens/s a GPU)")  # fmt: skip


if __name__ == "__main__":
    main()
