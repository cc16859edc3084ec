"""The plain version of `tasks.text` and `tasks.filtering.repetition`, from the definitions."""

import itertools
import re
from collections import Counter

ASCII_PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
WIDE_PUNCTUATION = re.compile(
    "[\u00a1\u00ab\u00b7\u00bb\u00bf\u060c\u061b\u061f\u0964\u0965\u2010-\u2027\u2030-\u205e"
    "\u3001-\u3003\u3008-\u3011\u3014-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff3d\uff5b-\uff65]"
)


def is_punctuation(character: str) -> bool:
    return character in ASCII_PUNCTUATION or WIDE_PUNCTUATION.match(character) is not None


def stripped(text: str) -> str:
    return text.strip().replace("\r\n", "\n").replace("\r", "\n")


def runs(text: str) -> list[str]:
    return ["".join(group) for _, group in itertools.groupby(text)]


def words_of(text: str) -> list[str]:
    words = []
    for token in text.split():
        body = token
        while body and is_punctuation(body[0]):
            body = body[1:]
        leading = token[: len(token) - len(body)]
        rest = body
        while body and is_punctuation(body[-1]):
            body = body[:-1]
        words += [*runs(leading), *([body] if body else []), *runs(rest[len(body) :])]
    return words


def lines_of(text: str) -> list[str]:
    text = stripped(text)
    return re.split(r"\n+", text) if text else []


def paragraphs_of(text: str) -> list[str]:
    text = stripped(text)
    return re.split(r"\n{2,}", text) if text else []


def duplicates(items: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    count = chars = 0
    for item in items:
        if item in seen:
            count += 1
            chars += len(item)
        seen.add(item)
    return count, chars


def top_chars(words: list[str], n: int) -> int:
    grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    if not grams:
        return 0
    gram, count = grams.most_common(1)[0]
    return len(" ".join(gram)) * count if count > 1 else 0


def duplicated_chars(words: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    chars = at = 0
    while at + n <= len(words):
        gram = tuple(words[at : at + n])
        if gram in seen:
            chars += len("".join(gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    return chars


def repetition(text: str) -> list[float]:
    """The thirteen metrics, in the order of `REPETITION_METRICS`."""
    length = len(stripped(text))
    if length == 0:
        return [0.0] * 13
    metrics: list[float] = []
    for items in (paragraphs_of(text), lines_of(text)):
        count, chars = duplicates(items)
        metrics += [count / len(items), chars / length]
    words = words_of(text)
    metrics += [min(1.0, top_chars(words, n) / length) for n in (2, 3, 4)]
    return metrics + [duplicated_chars(words, n) / length for n in range(5, 11)]
