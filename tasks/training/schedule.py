"""The learning rate of a step, as a fraction of the peak, and from which step a milestone is trained.

With W steps of warm-up, C of cool-down, A of annealing, T steps in all, m = min_lr_fraction, and p the share
of a phase that lies behind (0 at its first step, below 1 at its last):

    warm-up   (s + 1) / W                                    all schedules: the first step moves something
    cosine    m + (1 - m) (1 + cos(pi p)) / 2                to the end
    wsd       1, then for A steps  m + (1 - m) (1 - sqrt(p))
    infinite  c + (1 - c) (1 + cos(pi p)) / 2 for C steps, then c = (1 + m) / 2, then for A steps  c (m / c)^p

Sources: cosine: Loshchilov and Hutter, SGDR, 2017 (arXiv:1608.03983), equation 5; it is
`transformers.get_cosine_with_min_lr_schedule_with_warmup` at the same step, whose warm-up runs a step behind.
wsd: Hu et al., MiniCPM, 2024 (arXiv:2404.06395); its annealing: Haegele et al., 2024 (arXiv:2405.18392).
infinite: Ibrahim et al., 2024 (arXiv:2403.08763).

`restart`: each milestone has a schedule of its own, over all its steps. `extend`: a larger milestone goes on.
Of wsd and infinite it begins with the state before the smaller one's annealing, as if that had never been:
warm-up and cool-down are those of the first milestone, so up to there both have the same rates. Of cosine it
begins with the smaller one's final state, and warms up again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tasks.training.config import TrainingConfig
from tasks.training.replay import NO_REPLAY, Replay


@dataclass(frozen=True, slots=True)
class Schedule:
    """Of one milestone's training."""

    kind: str
    min_lr_fraction: float
    begin: int
    """The first step that is trained for this milestone; before it lies what a smaller one trained."""
    end: int
    """Steps in all."""
    origin: int
    """Where the formulas count from."""
    warmup: int
    cooldown: int
    anneal: int

    @classmethod
    def of(cls, config: TrainingConfig, borders: tuple[int, ...], replay: Replay = NO_REPLAY) -> Self:
        """The schedule of the last of some milestones.

        Args:
            config: of the training.
            borders: sequences of each milestone's corpus, growing.
            replay: general text that comes on top.
        """
        ends = [replay.total(config.epochs * border) // config.global_batch_sequences for border in borders]
        extends = config.continuation == "extend"
        end, before = ends[-1], ends[-2] if extends and len(ends) > 1 else 0
        if config.schedule == "cosine":
            warmup = round(config.warmup_fraction * (end - before))
            return cls("cosine", config.min_lr_fraction, before, end, before, warmup, 0, 0)
        first = ends[0] if extends else end
        rising = first - _anneal_steps(config, first)
        warmup = min(round(config.warmup_fraction * first), rising)
        cooled = round(config.cooldown_fraction * first) if config.schedule == "infinite" else 0
        return cls(
            kind=config.schedule,
            min_lr_fraction=config.min_lr_fraction,
            begin=before - _anneal_steps(config, before) if before else 0,
            end=end,
            origin=0,
            warmup=warmup,
            cooldown=min(cooled, rising - warmup),
            anneal=_anneal_steps(config, end),
        )

    @property
    def leave(self) -> int:
        """The step whose state a larger milestone goes on from."""
        return self.end - self.anneal

    def measured(self, fractions: Sequence[float]) -> list[int]:
        """The steps done at fractions of those trained for this milestone, each once, rounded up."""
        trained = self.end - self.begin
        return sorted({self.begin + math.ceil(round(fraction * trained, 6)) for fraction in fractions})

    def kept(self, fractions: Sequence[float]) -> list[int]:
        """Those of `measured` that are neither the base, which has no step, nor the final model."""
        return [step for step in self.measured(fractions) if 0 < step < self.end]

    def fraction(self, step: int) -> float:
        """What the peak is multiplied with at a step (from 0): in (0, 1] where min_lr_fraction > 0."""
        assert self.origin <= step < self.end, f"step {step} of {self.origin} to {self.end}"
        at, least = step - self.origin, self.min_lr_fraction
        if at < self.warmup:
            return (at + 1) / self.warmup
        if self.kind == "cosine":
            return _cosine((at - self.warmup) / (self.end - self.origin - self.warmup), least)
        annealed = (step - self.leave) / self.anneal
        if self.kind == "wsd":
            return 1.0 if annealed < 0 else least + (1 - least) * (1 - math.sqrt(annealed))
        constant = (1 + least) / 2
        if annealed >= 0:
            return float(constant * (least / constant) ** annealed)
        cooled = at - self.warmup
        return _cosine(cooled / self.cooldown, constant) if cooled < self.cooldown else constant


def _anneal_steps(config: TrainingConfig, steps: int) -> int:
    return max(1, round(config.anneal_fraction * steps))


def _cosine(progress: float, least: float) -> float:
    return least + (1 - least) * (1 + math.cos(math.pi * progress)) / 2
