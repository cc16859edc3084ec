"""Secrets kept out of what is written: in any text, their values become `***`.

What is a secret is told by where it stands: the value of an environment variable that is named like one, a
credential in a URL, a bearer token. Errors of ours mask themselves, log records do once `mask_logs` was
called, and whoever writes another's words masks them. Whoever prints past the logging of this process does
not: what must not be told must not be printed.
"""

import base64
import logging
import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any

SECRETS = ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Variables that tasks may need, to read sources and models and to reach the store."""
MASK = "***"
_NAMED_LIKE_SECRETS = ("_TOKEN", "_SECRET", "_PASSWORD", "_PASSWD", "_KEY", "_KEY_ID", "_AUTH_STRING")
_SHORTEST = 8
"""Shorter values are no secrets, and would take words out of texts."""
_IN_QUERY = (
    "token|access_token|sig|signature|password|secret|api_key|apikey|awsaccesskeyid|"
    "x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature"
)
_USER_AND_PASSWORD = re.compile(
    r"://(?:[^/@:\s]*:(?!\d+(?:[/?#]|$))[^@\s'\"]+|(?<=http://)[^/@\s]+|(?<=https://)[^/@\s]+)@"
)
_SIGNED = re.compile(rf"([?&](?:{_IN_QUERY})=)[^&\s'\"]+", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer\s+)[\w.~+/=-]{8,}")


def masked(text: str) -> str:
    """A text with nothing secret in it."""
    for value in _values():
        text = text.replace(value, MASK)
    text = _USER_AND_PASSWORD.sub(f"://{MASK}@", text)
    return _BEARER.sub(rf"\1{MASK}", _SIGNED.sub(rf"\1{MASK}", text))


def credential_in(text: str) -> str:
    """What a URL carries that is a secret, in words; empty where it carries none."""
    if "://" not in text:
        return ""
    if _USER_AND_PASSWORD.search(text):
        return "a user name or password"
    signed = _SIGNED.search(text)
    return signed[1][1:-1] if signed else ""


def _values() -> list[str]:
    """The values of this environment's secrets, the longest first: one may begin with another."""
    found = set()
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and name.endswith(_NAMED_LIKE_SECRETS):
            found.add(value)
            if name.endswith("_AUTH_STRING"):  # as a header carries it
                found.add(base64.b64encode(value.encode()).decode())
    return sorted(found, key=len, reverse=True)


class _MaskedRecord(logging.LogRecord):
    """A record that tells no secret, whoever formats it: neither its message nor its traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._exc_text: str | None = None
        super().__init__(*args, **kwargs)

    def getMessage(self) -> str:
        return masked(super().getMessage())

    @property
    def exc_text(self) -> str | None:
        """The traceback, as the first formatter wrote it for all others."""
        return self._exc_text

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        self._exc_text = masked(text) if text else text


def mask_logs() -> None:
    """Have every log record of this process masked, and the traceback it may die with."""
    logging.setLogRecordFactory(_MaskedRecord)
    sys.excepthook = _die_masked


def _die_masked(kind: type[BaseException], err: BaseException, where: TracebackType | None) -> None:
    sys.stderr.write(masked("".join(traceback.format_exception(kind, err, where))))
