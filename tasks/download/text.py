"""Bytes as text that can be stored: valid UTF-8 always, and how often something had to be replaced.

What is no UTF-8, and lone surrogates from JSON escapes, become U+FFFD, one for each broken piece: a page with
three bad bytes stays a page. The documents it happened to are counted, never dropped for it.
"""

import pyarrow as pa
import pyarrow.compute as pc

from tasks.store.errors import SourceError


def decoded(data: bytes) -> tuple[str, bool]:
    """Bytes as text, and whether something was replaced."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return data.decode(errors="replace"), True


def mended(text: str) -> tuple[str, bool]:
    """Text without lone surrogates, and whether there were any; surrogate pairs become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), True
    return text, False


def text_array(column: pa.Array, address: str, name: str) -> tuple[pa.Array, int]:
    """A Parquet column as valid text, nulls kept, and in how many values something was replaced.

    Args:
        column: string, large_string, string_view, their binary kin, or a dictionary of these.
        address: the file, for the error.
        name: the column, for the error.

    Raises:
        SourceError: the column is no text.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        column = column.cast(pa.large_binary())
    elif not (_is_text(kind) or pa.types.is_null(kind)):
        raise SourceError(
            f"{address}: column {name!r} is {kind}, expected text; set text_column to a column of text"
        )
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.string()), 0
    # A view, not a cast: Parquet promises UTF-8 and does not check it; what breaks that is mended.
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    text = column.view(pa.large_string() if wide else pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        pairs = [decoded(value) if value is not None else (None, False) for value in _raw(text)]
        return pa.array([value for value, _ in pairs], text.type), sum(replaced for _, replaced in pairs)
    return text, 0


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _raw(text: pa.Array) -> list[bytes | None]:
    values: list[bytes | None] = text.view(
        pa.large_binary() if pa.types.is_large_string(text.type) else pa.binary()
    ).to_pylist()
    return values


def as_strings(column: pa.Array) -> pa.Array:
    """A source's own ids as strings; null where they have no plain form."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_nested(column.type):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column, _ = text_array(column, "", "id")
    try:
        found = pc.cast(column, pa.string())
        found.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.nulls(len(column), pa.string())
    return found
