"""What facts are made of: frozen plain values, as objects or as rows of a list in JSON."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator


class Facts(BaseModel):
    """A part of what a report is told. Frozen; unknown keys are refused; no NaN (None says "not finite")."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class Row(Facts):
    """Facts that are a list in JSON, their fields in order: a fifth of the size."""

    @model_validator(mode="before")
    @classmethod
    def _read_row(cls, given: Any) -> Any:
        return dict(zip(cls.model_fields, given, strict=False)) if isinstance(given, list | tuple) else given

    @model_serializer
    def _as_row(self) -> list[float | None]:
        return [getattr(self, name) for name in type(self).model_fields]
