"""The base of every stage's config, and which of its fields are identity."""

from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.store.json import JSON


def how(default: Any, **constraints: Any) -> Any:
    """A field that says how to compute, not what: recorded, never part of an identity (DESIGN law 1)."""
    return Field(default, json_schema_extra={"identity": False}, **constraints)


class StageConfig(BaseModel):
    """What a stage computes. Frozen; unknown keys are refused; field docstrings are the UI's help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )

    def identity(self) -> JSON:
        """The canonical config: fields that differ from their default, less those that only say how.

        A new field therefore changes no old identity; a changed default does not either, so it needs a
        new `VERSION` of its stage.
        """
        given: JSON = self.model_dump(mode="json", exclude_defaults=True)
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("identity") is False:
                given.pop(name, None)
            elif name in given and isinstance(section := getattr(self, name), StageConfig):
                given[name] = section.identity()
        return given


@lru_cache(maxsize=64)
def identity_of(config: StageConfig) -> JSON:
    """`config.identity()`, made once for the ten thousand shards of a chain: not to be written to."""
    return config.identity()
