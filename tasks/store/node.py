"""A node of the graph: one computation, known by its fingerprint before it has run."""

from functools import cached_property
from typing import Self

import msgspec

from tasks.store.fingerprint import fingerprint
from tasks.store.json import JSON


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True, kw_only=True):
    """What is to be made: `stage` at `version`, under `config`, from `inputs`.

    `inputs` holds fingerprints of other nodes and digests of contents, by name. `reads` holds where this
    computation finds them (node paths relative to the store, or addresses): told to the task, no identity.
    """

    stage: str
    version: int
    config: JSON
    inputs: dict[str, str]
    reads: JSON = {}

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits; equal for equal computations."""
        return fingerprint(self.stage, self.version, self.config, self.inputs)

    @cached_property
    def path(self) -> str:
        """Where it stands, relative to the store's root."""
        return f"{self.stage}/{self.fingerprint[:2]}/{self.fingerprint}"

    def to_json(self) -> JSON:
        """Plain JSON, as a task is given it."""
        told: JSON = msgspec.to_builtins(self)
        return told

    @classmethod
    def from_json(cls, given: JSON) -> Self:
        """The node that `to_json` told of.

        Raises:
            ValueError: it is no node.
        """
        return msgspec.convert(given, cls)
