"""What a pre-tokenizer's regular expression never joins and never misses, read from the expression itself.

In: the pattern. Out: which two ASCII characters can stand side by side inside one match, in whatever text,
and which characters are part of a match wherever they stand. Both err on the safe side: bounds of repetition
are ignored, a class that may hold a character beyond ASCII is taken to hold them all, a look-ahead counts
as if it consumed the character it sees. What is not understood is refused, never guessed. Beside that stands
the expression itself as a tree (`tree_of`), from which `splits.py` makes a matcher.

The method is Glushkov's: number the characters of the expression, then collect which may come first, last,
and after which (V. M. Glushkov, The abstract theory of automata, 1961).
"""

import string
import unicodedata
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

BEYOND = 128
"""The symbol that stands for every character beyond ASCII."""
SYMBOLS = 129

CATEGORIES = (
    *("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Zs", "Zl", "Zp"),
    *("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Cc", "Cf", "Cs", "Co", "Cn"),
)
"""Unicode's general categories; behind the symbols, a class holds one entry for the rest of each."""

Class = NDArray[np.bool_]
"""(SYMBOLS + categories,) which symbols a class may hold, exact for ASCII, and which categories beyond it."""


def _none_held() -> Class:
    return np.zeros(SYMBOLS + len(CATEGORIES), np.bool_)


class Unsupported(ValueError):
    """What cannot be cut: caught where cutting is derived, and told as the reason for doing without."""


@dataclass(frozen=True, slots=True)
class Joins:
    """What matches of a pattern do to text."""

    joined: NDArray[np.bool_]
    """(SYMBOLS, SYMBOLS) pairs that some match may hold side by side, or judge by each other."""
    covered: NDArray[np.bool_]
    """(SYMBOLS,) symbols that are part of a match in any text; never BEYOND."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of the expression as it is written: which alternative, which number of times comes first."""

    kind: Literal["class", "ahead", "not ahead", "sequence", "any", "repeat"]
    parts: tuple["Node", ...] = ()
    held: Class | None = None
    """Of a class, and of the character that a look-ahead judges."""
    least: int = 1
    most: int | None = None
    """None: there is no bound."""


@dataclass(slots=True)
class _Part:
    """A piece of the expression: where it may begin and end, by numbers of its classes."""

    first: set[int]
    last: set[int]
    nullable: bool
    node: Node


@dataclass(slots=True)
class _Reader:
    text: str
    at: int = 0
    classes: list[Class] = field(default_factory=list)
    follows: set[tuple[int, int]] = field(default_factory=set)
    covered: Class = field(default_factory=_none_held)
    by_category: bool = True
    """Whether its classes tell characters beyond ASCII apart by category alone."""
    greedy: bool = True
    """Whether no quantifier is lazy or possessive."""

    def refuse(self, why: str) -> NoReturn:
        raise Unsupported(f"the expression {self.text!r}, character {self.at}: {why}")

    def peek(self, size: int = 1) -> str:
        return self.text[self.at : self.at + size]

    def take(self, wanted: str) -> bool:
        if self.text.startswith(wanted, self.at):
            self.at += len(wanted)
            return True
        return False

    def alternatives(self, *, fold: bool, top: bool = False) -> _Part:
        parts = [self.sequence(fold=fold, top=top)]
        while self.take("|"):
            parts.append(self.sequence(fold=fold, top=top))
        return _Part(
            set().union(*(p.first for p in parts)),
            set().union(*(p.last for p in parts)),
            any(p.nullable for p in parts),
            Node("any", tuple(p.node for p in parts)),
        )

    def sequence(self, *, fold: bool, top: bool) -> _Part:
        whole, parts = _Part(set(), set(), True, Node("sequence")), []
        while self.at < len(self.text) and self.peek() not in "|)":
            begins = len(self.classes)
            part, simple = self.repeated(fold=fold)
            parts.append((part, begins, simple))
            self.follows |= {(a, b) for a in whole.last for b in part.first}
            whole = _Part(
                whole.first | part.first if whole.nullable else whole.first,
                whole.last | part.last if part.nullable else part.last,
                whole.nullable and part.nullable,
                Node("sequence", (*whole.node.parts, part.node)),
            )
        if top:
            if whole.nullable:
                self.refuse("it may match nothing")
            needed = [(begins, simple) for part, begins, simple in parts if not part.nullable]
            if len(needed) == 1 and needed[0][1] and all(simple for *_, simple in parts):
                self.covered |= self.classes[needed[0][0]]
        return whole

    def repeated(self, *, fold: bool) -> tuple[_Part, bool]:
        """A part with its quantifier, and whether it is a class that nothing keeps from matching."""
        begins = len(self.classes)
        part, simple = self.atom(fold=fold)
        least, many = 1, False
        most: int | None = 1
        if self.peek() and self.peek() in "*+?":
            sign = self.peek()
            self.at += 1
            least, many = int(sign == "+"), sign != "?"
            most = None if many else 1
        elif self.peek() == "{":
            end = self.text.find("}", self.at)
            low, comma, high = self.text[self.at + 1 : end].partition(",")
            if end < 0 or not low.isdigit() or not (high.isdigit() or not high):
                self.refuse("a quantifier that is not understood")
            least, many, self.at = int(low), True, end + 1
            most = int(high) if high else None if comma else least
        else:
            return part, simple
        simple = simple and least <= 1
        if self.take("+"):  # possessive: what it has taken it does not give back
            simple, self.greedy = simple and least == 1, False
        elif self.take("?"):
            self.greedy = False
        if many:
            self.follows |= {(a, b) for a in part.last for b in part.first}
        assert begins <= len(self.classes)
        node = Node("repeat", (part.node,), least=least, most=most)
        return _Part(part.first, part.last, part.nullable or least == 0, node), simple

    def atom(self, *, fold: bool) -> tuple[_Part, bool]:
        ahead = self.peek(3) == "(?="
        if self.take("(?!") or self.take("(?="):
            seen = self.alternatives(fold=fold)
            if not self.take(")"):
                self.refuse("a group without an end")
            if seen.first != seen.last or seen.nullable or any(a in seen.first for a, _ in self.follows):
                self.refuse("a look-ahead over more than one character")
            # It judges by the next character, whichever that is.
            held = np.logical_or.reduce([self.classes[number] for number in seen.first])
            part = self.single(~_none_held())
            node = Node("ahead" if ahead else "not ahead", held=held)
            return _Part(part.first, part.last, True, node), False
        if self.take("("):
            if self.take("?i:"):
                fold = True
            elif not self.take("?:") and self.peek() == "?":
                self.refuse("a group of a kind that is not understood")
            part = self.alternatives(fold=fold)
            if not self.take(")"):
                self.refuse("a group without an end")
            return part, False
        if self.peek() == "[":
            return self.single(self.bracket(fold=fold)), True
        if self.peek() in "^$":
            self.refuse("an anchor")
        if self.take("."):
            held = ~_none_held()
            held[10] = False
            return self.single(held), True
        return self.single(self.character(fold=fold)), True

    def single(self, held: Class) -> _Part:
        self.classes.append(held)
        return _Part({len(self.classes) - 1}, {len(self.classes) - 1}, False, Node("class", held=held))

    def bracket(self, *, fold: bool) -> Class:
        self.at += 1
        negated, held = self.take("^"), _none_held()
        begins = self.at
        while self.peek() != "]" or self.at == begins:
            if self.peek() in ("", "[") or self.peek(2) == "&&":
                self.refuse("a class of a kind that is not understood")
            low = self.point()
            if low is None:
                held |= self.character(fold=fold)
                continue
            high = low
            if self.peek() == "-" and self.peek(2)[1:] not in ("]", ""):
                self.at += 1
                end = self.point()
                if end is None or end < low:
                    self.refuse("a range of a kind that is not understood")
                high = end
            held[low : min(high + 1, BEYOND)] = True
            if high >= BEYOND:
                held[BEYOND], self.by_category = True, False
        self.at += 1
        if fold:
            held, self.by_category = _folded(held), False
        if negated:
            held = ~held
            held[BEYOND] = True
        return held

    def point(self) -> int | None:
        """A single character, taken; None where a class stands."""
        if self.peek() != "\\":
            self.at += 1
            return ord(self.text[self.at - 1])
        letter = self.peek(2)[1:]
        if letter in _CONTROLS or (letter and not letter.isalnum()):
            self.at += 2
            return ord(_CONTROLS.get(letter, letter))
        return None

    def character(self, *, fold: bool) -> Class:
        point = self.point()
        if point is not None:
            held = _none_held()
            held[min(point, BEYOND)] = True
            self.by_category &= point < BEYOND
            return _folded(held) if fold else held
        letter = self.peek(2)[1:]
        self.at += 2
        if letter in ("p", "P"):
            end = self.text.find("}", self.at)
            name = self.text[self.at + 1 : end]
            if self.peek() != "{" or end < 0 or name not in _CATEGORIES:
                self.refuse("a property that is not understood")
            self.at = end + 1
            found = [unicodedata.category(chr(n)) for n in range(BEYOND)]
            held = np.array([each.startswith(name) for each in (*found, name, *CATEGORIES)])
            self.by_category &= not fold
        elif letter.lower() in _SETS:
            ascii_held, category = _SETS[letter.lower()]
            held = np.array([chr(n) in ascii_held for n in range(BEYOND)] + [True])
            held = np.append(held, [each.startswith(category) for each in CATEGORIES])
            self.by_category &= letter in "sSdD"
        else:
            self.refuse(f"\\{letter} is not understood")
        if letter.isupper():
            held = ~held
            held[BEYOND] = True
        return held


_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_SETS = {
    "s": (" \t\n\v\f\r", "Z"),
    "d": (string.digits, "Nd"),
    "w": (string.ascii_letters + string.digits + "_", "L"),
}
"""What they hold of ASCII, and the categories that they hold beyond it (but for U+0085, and more for \\w)."""
_CATEGORIES = {*"LNPSZMC", *CATEGORIES} - {"Cs", "Co", "Cn"}


def _folded(held: Class) -> Class:
    """The class, letters in either case; some letters have a third case beyond ASCII."""
    held = held.copy()
    upper, lower = slice(65, 91), slice(97, 123)
    either = held[upper] | held[lower]
    held[upper] = held[lower] = either
    held[BEYOND] |= bool(either.any())
    return held


def joins_of(pattern: str) -> Joins:
    """Read a pattern.

    Args:
        pattern: in the syntax that Oniguruma and Rust's regex share.

    Raises:
        Unsupported: it is not understood, or may match nothing.
    """
    reader = _Reader(pattern)
    reader.alternatives(fold=False, top=True)
    if reader.at != len(pattern):
        reader.refuse("a bracket too many")
    joined = np.zeros((SYMBOLS, SYMBOLS), np.bool_)
    for a, b in reader.follows:
        joined |= reader.classes[a][:SYMBOLS, None] & reader.classes[b][None, :SYMBOLS]
    covered = reader.covered[:SYMBOLS]
    covered[BEYOND] = False
    return Joins(joined, covered)


def tree_of(pattern: str) -> tuple[Node, bool]:
    """Read a pattern as a tree of greedy parts.

    Args:
        pattern: as for `joins_of`.

    Returns:
        Its tree, and whether it tells characters beyond ASCII apart by category alone (but for U+0085,
        U+017F and U+212A, which are space and letters of case in their own way).

    Raises:
        Unsupported: it is not understood, may match nothing, or is not greedy throughout.
    """
    reader = _Reader(pattern)
    whole = reader.alternatives(fold=False, top=True)
    if reader.at != len(pattern):
        reader.refuse("a bracket too many")
    if not reader.greedy:
        reader.refuse("a lazy or possessive quantifier")
    return whole.node, reader.by_category
