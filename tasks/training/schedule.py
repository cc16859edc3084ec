"""The learning rate of a step: linear warm-up, then half a cosine.

    warm = round(warmup_fraction * steps)
    s < warm:   (s + 1) / warm
    s >= warm:  m + (1 - m) * (1 + cos(pi * (s - warm) / (steps - warm))) / 2,   m = min_lr_fraction

The cosine is `transformers.get_cosine_with_min_lr_schedule_with_warmup` at the same step; the warm-up is its
warm-up one step on, because theirs starts at 0 and the first batch would move nothing.
Source: Loshchilov and Hutter, SGDR, 2017 (arXiv:1608.03983), equation 5.
"""

import math


def warmup_steps(steps: int, warmup_fraction: float) -> int:
    """Steps of the warm-up."""
    return round(warmup_fraction * steps)


def learning_rate_fraction(step: int, *, steps: int, warmup_fraction: float, min_lr_fraction: float) -> float:
    """What the learning rate is multiplied with at a step (from 0): in (0, 1] where min_lr_fraction > 0."""
    warm = warmup_steps(steps, warmup_fraction)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    return min_lr_fraction + (1 - min_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2
