"""Questions asked side by side: in order, each within its time, one that breaks told, no secret in any."""

import threading
from collections.abc import Iterator

import pytest

from flows.doctor_check import Check, ask_all, once
from tasks.store.errors import RecipeError


def test_answers_stand_in_the_order_of_the_questions_whoever_is_first() -> None:
    later = threading.Event()

    def slow() -> Iterator[Check]:
        later.wait(10)
        yield Check("slow", "ok", "a")

    def quick() -> Iterator[Check]:
        later.set()
        yield Check("quick", "ok", "b")
        yield Check("quick", "warning", "c")

    found = ask_all({"slow": slow, "quick": quick}, limit_s=30)
    assert [check.found for check in found] == ["a", "b", "c"]


def test_a_question_without_an_answer_is_told_and_hides_no_other() -> None:
    ending = threading.Event()

    def hanging() -> Iterator[Check]:
        ending.wait(60)
        yield Check("never", "ok", "")

    found = ask_all({"disk": hanging, "well": lambda: [Check("well", "ok", "fine")]}, limit_s=0.2)
    ending.set()
    assert [(check.check, check.state) for check in found] == [("disk", "warning"), ("well", "ok")]
    assert found[0].found == "no answer within 0.2 s"


@pytest.mark.parametrize("error", [RecipeError("seed=-1, expected more"), KeyError("nobody expected this")])
def test_a_question_that_breaks_fails_under_its_name(error: Exception) -> None:
    def broken() -> Iterator[Check]:
        raise error

    (found,) = ask_all({"plan": broken}, limit_s=30)
    assert (found.check, found.state) == ("plan", "fails")
    assert str(error) in found.found


def test_no_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:planted")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "keyplanted")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "127.0.0.1:3128")  # has TOKEN in its name and holds none
    told = "http://me:proxyplanted@127.0.0.1:3128 hf_planted admin:planted keyplanted"
    (found,) = ask_all({"x": lambda: [Check("x", "fails", told, told, told)]}, limit_s=30)
    assert found.found == found.expected == found.do == "http://***@127.0.0.1:3128 *** *** ***"


def test_work_is_done_once_by_whichever_thread_asks_first() -> None:
    made: list[int] = []

    def work() -> int:
        made.append(1)
        return len(made)

    shared = once(work)
    answers = ask_all(
        {str(n): lambda: [Check("x", "ok", str(shared()))] for n in range(8)},
        limit_s=30,
    )
    assert {check.found for check in answers} == {"1"}
