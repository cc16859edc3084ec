"""A node of the graph: one computation, known by its fingerprint before it has run."""

from functools import cached_property

from pydantic import BaseModel, ConfigDict

from tasks.store.config import JSON
from tasks.store.fingerprint import fingerprint


class Node(BaseModel):
    """What is to be made: `stage` at `version`, under `config`, from `inputs`.

    `inputs` holds fingerprints of other nodes and digests of contents, by name. `reads` holds where this
    computation finds them (node paths relative to the store, or addresses): told to the task, no identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: int
    config: JSON
    inputs: dict[str, str]
    reads: JSON = {}

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits; equal for equal computations."""
        return fingerprint(self.stage, self.version, self.config, self.inputs)

    @property
    def path(self) -> str:
        """Where it stands, relative to the store's root."""
        return f"{self.stage}/{self.fingerprint[:2]}/{self.fingerprint}"
