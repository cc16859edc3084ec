"""A check of `dapt doctor`: what was found, what was expected, what to do; and many of them side by side.

Each question is asked in a thread of its own and given a time, so that a network that is dead, or a disk that
hangs, costs that much once and hides nothing else. A thread that does not come back is left behind: it is a
daemon and ends with the process. What is told holds no secret: passwords in URLs and the values of the
variables that hold one are taken out of every text.
"""

import contextvars
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from tasks.store.errors import DaptError

State = Literal["ok", "warning", "fails"]
T = TypeVar("T")

_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SECRET = re.compile(r"(TOKEN|PASSWORD|API_KEY|AUTH_STRING)$|SECRET")
_SECRET_LENGTH = 8
"""A shorter value is a word that paths and names hold too."""


@dataclass(frozen=True, slots=True)
class Check:
    """One answer."""

    check: str
    """What was looked at."""
    state: State
    """"fails": something will not work; "warning": it will, but not as one may think."""
    found: str
    expected: str = ""
    """Empty where all is well."""
    do: str = ""
    """What makes it well; empty where it is."""


Question = Callable[[], Iterable[Check]]


def ask_all(questions: Mapping[str, Question], *, limit_s: float, silence: State = "warning") -> list[Check]:
    """Ask everything at once; the answers stand in the order of the questions.

    Args:
        questions: by the name under which one that does not answer is told.
        limit_s: for all of them.
        silence: what it is when one takes longer.
    """
    answers: dict[str, list[Check]] = {}

    def ask(name: str, question: Question) -> None:
        answers[name] = answer(name, question)

    threads = {}
    for name, question in questions.items():
        run = contextvars.copy_context().run
        threads[name] = threading.Thread(target=run, args=[ask, name, question], daemon=True)
        threads[name].start()
    deadline = time.monotonic() + limit_s
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    secrets = _secrets()
    told = [check for name in questions for check in answers.get(name, [_silent(name, limit_s, silence)])]
    return [_without(check, secrets) for check in told]


def once(work: Callable[[], T]) -> Callable[[], T]:
    """A function that does its work in the first thread that asks; the others wait for it."""
    lock = threading.Lock()
    done: list[T] = []

    def value() -> T:
        with lock:
            if not done:
                done.append(work())
            return done[0]

    return value


def answer(name: str, question: Question) -> list[Check]:
    """What a question yields; what it breaks of is its answer too."""
    try:
        return list(question())
    except DaptError as err:
        return [Check(name, "fails", str(err), "an answer", "see what was found")]
    except Exception as err:  # noqa: BLE001 - one question that breaks must not hide the others' answers
        return [Check(name, "fails", f"{type(err).__name__}: {err}", "an answer", "see what was found")]


def _silent(name: str, limit_s: float, state: State) -> Check:
    return Check(
        name,
        state,
        f"no answer within {limit_s:g} s",
        "one within seconds",
        "look at the disk, network or machine behind it; on a busy machine ask again",
    )


def _secrets() -> list[str]:
    return [
        value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SECRET_LENGTH
    ]


def _without(check: Check, secrets: list[str]) -> Check:
    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return _PASSWORD.sub("***", text)

    return replace(check, found=clean(check.found), expected=clean(check.expected), do=clean(check.do))
