"""The plain version of `tasks.filtering.length` and `tasks.filtering.quality`."""

from tests.oracles.repetition import is_punctuation, lines_of, stripped, words_of

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
LINE_ENDS = tuple(".!?\"'\u2026\u201d\u2019\u3002\uff01\uff1f\u061f\u0964")


def full_lines(text: str) -> list[str]:
    return [line.strip() for line in lines_of(text) if line.strip()]


def length(text: str, short_line_characters: int) -> tuple[int, float]:
    """Lines that are not blank, and the share of their characters on short ones."""
    sizes = [len(line) for line in full_lines(text)]
    short = sum(size for size in sizes if size <= short_line_characters)
    return len(sizes), short / sum(sizes) if sizes else 0.0


def is_lettered(word: str) -> bool:
    return any(c >= "\x80" or "a" <= c <= "z" or "A" <= c <= "Z" for c in word)


def ascii_lowered(word: str) -> str:
    return "".join(c.lower() if c < "\x80" else c for c in word)


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def quality(text: str) -> list[float]:
    """The eleven metrics, in the order of `GOPHER_METRICS + FINEWEB_METRICS`."""
    text = stripped(text)
    words = [word for word in words_of(text) if not is_punctuation(word[0])]
    lines = full_lines(text)
    return [
        float(len(words)),
        share(sum(map(len, words)), len(words)),
        share(text.count("#"), len(words)),
        share(text.count("...") + text.count("\u2026"), len(words)),
        share(sum(line[0] in "\u2022-*" for line in lines), len(lines)),
        share(sum(line.endswith(("...", "\u2026")) for line in lines), len(lines)),
        share(sum(map(is_lettered, words)), len(words)),
        float(len(STOP_WORDS & {ascii_lowered(word) for word in words})),
        share(sum(line.endswith(LINE_ENDS) for line in lines), len(lines)),
        share(sum(len(line) <= 30 for line in lines), len(lines)),
        share(text.count("\n"), len(words)),
    ]
