"""Amounts as people write them: "400M" tokens, "64MB" of text."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator

_SCALE = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NUMBER = re.compile(r"\s*(\d[\d_]*(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def _parse(value: object, scale: dict[str, int], expected: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is no amount; expected {expected}")
    match = _NUMBER.fullmatch(str(value))
    if match is None or match[2].upper() not in scale:
        raise ValueError(f"{value!r} is no amount; expected {expected}")
    amount = Decimal(match[1].replace("_", "")) * scale[match[2].upper()]
    if amount != int(amount) or amount < 1:
        raise ValueError(f"{value!r} is no whole amount of at least 1; expected {expected}")
    return int(amount)


def parse_tokens(value: object) -> int:
    """Read a number of tokens: 400M, 1.5B, 1_000_000 or an integer.

    Raises:
        ValueError: it is none, names what was found.
    """
    return _parse(value, _SCALE, 'a number of tokens such as "400M", "1B" or 1000000')


def parse_bytes(value: object) -> int:
    """Read a size in bytes: 64MB, 1.5GB or an integer (decimal units).

    Raises:
        ValueError: it is none, names what was found.
    """
    return _parse(value, {"": 1} | _BYTES, 'a size such as "64MB", "1GB" or 64000000')


def format_tokens(count: int) -> str:
    """The shortest exact way to write a number of tokens: 400M, 1.5B, 1234567."""
    units = (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3), ("", 1))
    return min((f"{Decimal(count) / size:f}{unit}" for unit, size in units if count >= size), key=len)


Tokens = Annotated[int, BeforeValidator(parse_tokens)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]


def size_told(num_bytes: float) -> str:
    """As people read it: two digits below 10 MB, whole MB above, GB from 10 GB on."""
    if num_bytes >= 1e10:
        return f"{num_bytes / 1e9:,.1f} GB"
    return f"{num_bytes / 1e6:,.0f} MB" if num_bytes >= 1e7 else f"{num_bytes / 1e6:.2g} MB"
