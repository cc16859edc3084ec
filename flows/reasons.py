"""Why a node is missing, by comparison with the last different run of the same recipe."""

from collections.abc import Iterator

from pydantic import ValidationError

from flows.recipe import Recipe
from flows.record import Record
from tasks.store.failure import read_failure
from tasks.store.json import JSON
from tasks.store.manifest import NAME, why_damaged
from tasks.store.node import Node
from tasks.store.paths import Store

SECTIONS: dict[str, tuple[str, ...]] = {
    "download": ("download",),
    "filtering": ("filtering",),
    "signatures": ("dedup",),
    "benchmarks": ("dedup", "evaluation"),
    "contamination": ("dedup", "evaluation"),
    "dedup": ("dedup", "held_out"),
    "tokenizer": ("tokenization",),
    "tokenization": ("tokenization",),
    "packing": ("packing",),
    "corpus": ("budget",),
    "reference_loss": ("training",),
    "training": ("training",),
    "evaluation": ("evaluation",),
}
"""Sections of the recipe that shape a stage."""

_WHERE = frozenset({"files", "dataset", "shard_bytes"})
"""Fields of a source that say where text lies or how it is cut: what they change shows as new shards."""


_REPLAY = frozenset({"replay_fraction", "max_repeats"})
"""Fields of the general section that shape no general shard."""
_ASKED_FOR = frozenset({"benchmarks", "contamination"})
"""Stages that a shard may have been without."""
_BY_MILESTONE = frozenset({"corpus", "training", "evaluation", "report"})


class Reasons:
    """Tells why nodes of one recipe are missing."""

    def __init__(self, store: Store, recipe: Recipe, records: list[Record]) -> None:
        self._store = store
        self._recipe: JSON = recipe.model_dump(mode="json")
        self._before = next((r for r in records if r.digest != recipe.digest), None)
        self._recipe_before = _completed(self._before.recipe) if self._before else {}
        self._known: dict[str, frozenset[str]] = {}
        self._changed: dict[tuple[str, bool], list[str]] = {}

    def why(self, node: Node, stage: str, position: int, upstream: list[tuple[str, str]]) -> str:
        """The reason of a miss.

        Args:
            node: what is missing.
            stage: its name as the plan tells it ("general:dedup").
            position: of its shard.
            upstream: (stage, reason) of the nodes of this shard that come before it and are missing.
        """
        failure = read_failure(self._store, node)
        if failure is not None:
            return f"failed before: {failure['error'].splitlines()[0]}"
        if self._store.size(f"{node.path}/{NAME}") is not None:
            return f"damaged: {why_damaged(self._store, node.path)}"
        if self._before is None or node.path in self._stood(stage):
            return "not made yet"
        kind = (node.stage, stage.startswith("general:"))
        if kind not in self._changed:  # the same for every shard
            self._changed[kind] = self.changed_fields(node.stage, general=kind[1])
        changed = self._changed[kind]
        if position >= len(self._before.nodes.get("download" if kind[0] in _ASKED_FOR else stage, [])):
            return f"new {'milestone' if node.stage in _BY_MILESTONE else 'shard'}"
        if changed:
            return ", ".join(changed)
        if node.version != self._before.versions.get(node.stage, node.version):
            return f"{node.stage} VERSION {self._before.versions[node.stage]} → {node.version}"
        told = next((f"{name} ({reason})" for name, reason in upstream), "what it reads changed")
        return told if told == "what it reads changed" else f"follows {told}"

    def _stood(self, stage: str) -> frozenset[str]:
        """Nodes of a stage that the run before stood on: the base is told as a training."""
        assert self._before is not None
        if stage not in self._known:
            base = self._before.nodes.get("base", []) if stage == "training" else []
            self._known[stage] = frozenset([*base, *self._before.nodes.get(stage, [])])
        return self._known[stage]

    def changed_fields(self, stage: str, *, general: bool) -> list[str]:
        """`filtering.min_lines: 3 → 12`, for each field of a stage's sections that differs."""
        found = []
        sections = ("general",) if general and stage == "download" else SECTIONS.get(stage, ())
        for section in sections:
            for field, old, new in differing(self._recipe_before, self._recipe, section):
                if field not in _WHERE | _REPLAY:
                    found.append(f"{section}.{field}: {value_told(old)} → {value_told(new)}")
        if stage == "training" or (general and stage == "corpus"):
            shares = [
                (recipe.get("general") or {}).get("replay_fraction", 0)
                for recipe in (self._recipe_before, self._recipe)
            ]
            if shares[0] != shares[1]:
                found.append(f"general.replay_fraction: {shares[0]} → {shares[1]}")
        return found


def differing(before: JSON, after: JSON, section: str) -> Iterator[tuple[str, object, object]]:
    """Fields of a section that differ between two recipes, with what each says; None where it has none."""
    old, new = before.get(section) or {}, after.get(section) or {}
    for field in sorted(old.keys() | new.keys()):
        if old.get(field) != new.get(field):
            yield field, old.get(field), new.get(field)


def value_told(value: object) -> str:
    """A field's value in words."""
    return "absent" if value is None else str(value)


def _completed(recorded: JSON) -> JSON:
    """A recipe as it was recorded, with the defaults of fields that came since."""
    try:
        return Recipe.model_validate(recorded).model_dump(mode="json")
    except ValidationError:  # it has fields that went since
        return recorded
