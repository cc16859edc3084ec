"""A pre-tokenizer's regular expressions as tables, so that a kernel splits as the library does.

In: the expressions of its stages, in order. Out: one automaton that reads a character a step (`Splits`), and
the kernel that runs it. Each stage splits what the stage before left, at matches and at what lies between.

An expression is first a program of threads in order of preference, as a backtracking matcher would try them;
the ordered set of threads alive is then a state (K. Thompson, Regular expression search algorithm, 1968;
R. Cox, Regular expression matching in the wild, 2010). Where a preferred thread matches, all behind it end,
so the last match seen is the one that backtracking finds first. A look-ahead is decided by the character that
is read next, so a state also says whether a match ends before it.

Characters beyond ASCII are told apart by their category, where every expression does no more than that. The
library's tables are of another Unicode version than Python's: a character counts as known if Unicode 3.2
gives it the category that it has today. What is not known is not split here.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.text.kernel import kernel
from tasks.tokenization.regex import BEYOND, CATEGORIES, SYMBOLS, Class, Node, Unsupported, tree_of

UNKNOWN = 255
"""The group of a character that is not split here."""
_POINTS = 1 << 16
_MOST_STATES = 1000
_DEAD = 0
_OTHERWISE = frozenset("\x85\u017f\u212a")
"""Space though a control; the letters that are an s and a k where case does not count."""


class Splits(NamedTuple):
    """An automaton for each stage, in one table (a tuple, so that kernels take it)."""

    groups: NDArray[np.uint8]
    """(65536,) of each character: what no stage tells apart is one group, the last is the end of the text."""
    starts: NDArray[np.int64]
    """(stages,) the state in which each begins."""
    after: NDArray[np.int16]
    """(states, groups + 1) the state after a character; 0: no match goes on."""
    ends: NDArray[np.bool_]
    """(states, groups + 1) whether a match ends before the character."""


@dataclass(slots=True)
class _Program:
    """Steps of threads: a class to read, a look-ahead, or where to go on, the preferred first."""

    nodes: list[Node] = field(default_factory=list)
    onward: list[list[int]] = field(default_factory=list)

    def add(self, node: Node, onward: list[int]) -> int:
        self.nodes.append(node)
        self.onward.append(onward)
        return len(self.nodes) - 1

    def compile(self, node: Node, goal: int) -> int:
        """The step where `node` begins, if `goal` follows it."""
        if node.kind == "sequence":
            for part in reversed(node.parts):
                goal = self.compile(part, goal)
            return goal
        if node.kind == "any":
            return self.add(node, [self.compile(part, goal) for part in node.parts])
        if node.kind != "repeat":
            return self.add(node, [goal])
        (part,) = node.parts
        begins = goal
        if node.most is None:
            begins = self.add(node, [])
            self.onward[begins] = [self.compile(part, begins), goal]
        else:
            for _ in range(node.most - node.least):
                begins = self.add(node, [self.compile(part, begins), goal])
        for _ in range(node.least):
            begins = self.compile(part, begins)
        return begins

    def reads(self, step: int, member: Class) -> bool:
        """Whether the class or look-ahead of that step holds the characters `member`."""
        held = self.nodes[step].held
        return held is not None and bool((held & member).any())

    def alive(self, threads: Sequence[int], member: Class) -> tuple[list[int], bool]:
        """The classes that threads wait at, and whether one has matched; those behind it are left out.

        Args:
            threads: in order of preference.
            member: (SYMBOLS + categories,) what the next character is one of; nothing: the text ends.
        """
        waiting: list[int] = []
        seen: set[int] = set()
        stack = list(reversed(threads))
        while stack:
            step = stack.pop()
            if step in seen:
                continue
            seen.add(step)
            node, onward = self.nodes[step], self.onward[step]
            if not onward:
                return waiting, True
            if node.kind == "class":
                waiting.append(step)
            elif node.held is None or self.reads(step, member) == (node.kind == "ahead"):
                stack += reversed(onward)
        return waiting, False


def splits_of(patterns: Sequence[str]) -> Splits:
    """Make the automaton.

    Args:
        patterns: one a stage; its matches are isolated.

    Raises:
        Unsupported: one is not understood or takes too many states.
    """
    trees = [tree_of(pattern) for pattern in patterns]
    width = SYMBOLS + len(CATEGORIES)
    classes = [np.zeros(width, np.bool_), *(held for tree, _ in trees for held in _classes(tree))]
    columns = np.delete(np.array(classes), BEYOND, axis=1)  # no character, so it must not tell groups apart
    _, first, group_of = np.unique(columns, axis=1, return_index=True, return_inverse=True)
    num_groups = len(first)
    if num_groups >= UNKNOWN:
        raise Unsupported("expressions that tell too many characters apart")
    members = np.zeros((num_groups, width), np.bool_)
    symbols = np.delete(np.arange(width), BEYOND)
    members[group_of.reshape(-1), symbols] = True
    after, ends, starts = [[_DEAD] * (num_groups + 1)], [[False] * (num_groups + 1)], []
    for tree, _ in trees:
        starts.append(len(after))
        _add_states(tree, members, after, ends)
    by_category = all(exact for _, exact in trees)
    groups = _groups(group_of.reshape(-1).tolist(), by_category=by_category)
    return Splits(groups, np.array(starts, np.int64), np.array(after, np.int16), np.array(ends, np.bool_))


def _classes(node: Node) -> list[Class]:
    own = [] if node.held is None else [node.held]
    return own + [held for part in node.parts for held in _classes(part)]


def _add_states(tree: Node, members: Class, after: list[list[int]], ends: list[list[bool]]) -> None:
    """Append the states of one expression to the table."""
    program = _Program()
    goal = program.add(Node("sequence"), [])
    queue: list[tuple[int, ...]] = [(program.compile(tree, goal),)]
    numbers = {(): _DEAD, queue[0]: len(after)}
    nothing = np.zeros(members.shape[1], np.bool_)  # at the end of the text
    for threads in queue:
        row, ended = [], []
        for member in (*members, nothing):
            waiting, matched = program.alive(threads, member)
            reached = tuple(dict.fromkeys(program.onward[s][0] for s in waiting if program.reads(s, member)))
            if reached not in numbers:
                numbers[reached] = numbers[queue[0]] + len(queue)
                queue.append(reached)
            row.append(numbers[reached])
            ended.append(matched)
        after.append(row)
        ends.append(ended)
        if len(after) > _MOST_STATES:
            raise Unsupported("an expression of too many states")


def _groups(group_of: list[int], *, by_category: bool) -> NDArray[np.uint8]:
    """(65536,) the group of each character, from those of ASCII and of the categories."""
    groups = np.full(_POINTS, UNKNOWN, np.uint8)
    groups[:BEYOND] = group_of[:BEYOND]
    if by_category:
        of_category = dict(zip(CATEGORIES, group_of[BEYOND:], strict=True))
        for point in range(BEYOND, _POINTS):
            character = chr(point)
            category = unicodedata.category(character)
            known = category == unicodedata.ucd_3_2_0.category(character) and category not in ("Cn", "Cs")
            if known and character not in _OTHERWISE:
                groups[point] = of_category[category]
    return groups


@kernel
def split_characters(
    groups: NDArray[np.uint8],
    size: int,
    starts: NDArray[np.int64],
    after: NDArray[np.int16],
    ends: NDArray[np.bool_],
    begins: NDArray[np.bool_],
) -> None:
    """Mark where parts begin.

    Args:
        groups: (>= size,) of the characters of a text.
        size: how many it has.
        starts: see `Splits`.
        after: see `Splits`.
        ends: see `Splits`.
        begins: (> size,) filled with whether a part begins at each character, and true behind the last.
    """
    begins[: size + 1] = False
    begins[0] = begins[size] = True
    at_end = after.shape[1] - 1
    for stage in range(len(starts)):
        start = 0
        while start < size:
            stop = start + 1
            while not begins[stop]:
                stop += 1
            at = start
            while at < stop:
                state, last, reading = starts[stage], -1, at
                while state != 0:
                    group = np.int64(groups[reading]) if reading < stop else at_end
                    if ends[state, group]:
                        last = reading
                    state = np.int64(after[state, group])
                    reading += 1
                if last > at:
                    begins[at] = begins[last] = True
                    at = last
                else:
                    at += 1
            start = stop
