"""Who listens hears; nobody else pays."""

from tasks.runtime.progress import Progress, listening, tell

WORD = Progress("packing", "00003", 5, 10, "documents")


def test_all_who_listen_hear_and_only_while_they_do() -> None:
    first: list[Progress] = []
    second: list[Progress] = []
    tell(WORD)
    with listening(first.append):
        with listening(second.append):
            tell(WORD)
        tell(WORD)
    tell(WORD)
    assert (first, second) == ([WORD, WORD], [WORD])
