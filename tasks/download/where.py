"""Which rows of a source are wanted: a predicate on its columns, `where = "score >= 3 and lang == 'en'"`.

Written as Python writes comparisons: `== != < <= > >=`, `in [...]`, `is null`, `and`, `or`, `not`, brackets,
and a column alone where it holds truth values. As in SQL, a comparison with null is neither true nor false,
and so is one between kinds that do not compare (in JSON a column may hold anything); only rows for which the
whole is true are wanted. What the statistics of a Parquet row group rule out is not read.
"""

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.runtime.imports import Late
from tasks.store.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:  # a recipe holds a predicate; a plan of what stands asks no column
    pa, pc = Late("pyarrow"), Late("pyarrow.compute")

Value = str | int | float | bool
Statistics = tuple[Any, Any]
"""The least and the greatest value of a column in a row group."""

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
_FLIPPED = {
    "less": "greater",
    "less_equal": "greater_equal",
    "greater": "less",
    "greater_equal": "less_equal",
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "equal": lambda a, b: a == b,
    "not_equal": lambda a, b: a != b,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
}
_EXPECTED = "expected comparisons of columns, such as \"score >= 3 and language == 'en'\""


class Where(ABC):
    """A predicate."""

    @property
    @abstractmethod
    def columns(self) -> frozenset[str]:
        """The columns it looks at."""

    @abstractmethod
    def mask(self, table: "pa.Table") -> "pa.ChunkedArray":
        """(num_rows,) of each row whether it is wanted, null where that is not known.

        Raises:
            SourceError: a column does not compare with what it is compared with.
        """

    @abstractmethod
    def holds(self, record: Mapping[str, Any]) -> bool | None:
        """The same of one JSON object."""

    @abstractmethod
    def may_hold(self, statistics: Mapping[str, Statistics]) -> bool:
        """Whether a row within these bounds might be wanted; a column without bounds may hold anything."""


@dataclass(frozen=True, slots=True)
class _Compared(Where):
    column: str
    how: str
    value: Value

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.column})

    def mask(self, table: "pa.Table") -> "pa.ChunkedArray":
        column = table[self.column]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            value = pa.scalar(self.value)
            if pa.types.is_temporal(column.type) and isinstance(self.value, str):
                value = value.cast(column.type)
            return pc.call_function(self.how, [column, value])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as err:
            raise SourceError(
                f"where: column {self.column!r} is {column.type} and does not compare with {self.value!r}; "
                "compare it with a value of its kind"
            ) from err

    def holds(self, record: Mapping[str, Any]) -> bool | None:
        found = record.get(self.column)
        if _kind(found) is not _kind(self.value):
            return None
        return _COMPARE[self.how](found, self.value)

    def may_hold(self, statistics: Mapping[str, Statistics]) -> bool:
        least, greatest = statistics.get(self.column, (None, None))
        if _kind(least) is not _kind(self.value) or _kind(greatest) is not _kind(self.value):
            return True
        compare = _COMPARE[self.how]
        if self.how == "equal":
            return bool(least <= self.value <= greatest)
        if self.how == "not_equal":
            return bool(least != self.value or greatest != self.value)
        return compare(least, self.value) or compare(greatest, self.value)


@dataclass(frozen=True, slots=True)
class _Null(Where):
    column: str
    is_null: bool

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.column})

    def mask(self, table: "pa.Table") -> "pa.ChunkedArray":
        return pc.is_null(table[self.column]) if self.is_null else pc.is_valid(table[self.column])

    def holds(self, record: Mapping[str, Any]) -> bool | None:
        return (record.get(self.column) is None) == self.is_null

    def may_hold(self, statistics: Mapping[str, Statistics]) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Joined(Where):
    parts: tuple[Where, ...]
    every: bool
    """All of them have to hold; else one."""

    @property
    def columns(self) -> frozenset[str]:
        return frozenset().union(*(part.columns for part in self.parts))

    def mask(self, table: "pa.Table") -> "pa.ChunkedArray":
        join = pc.and_kleene if self.every else pc.or_kleene
        found, *others = (part.mask(table) for part in self.parts)
        for other in others:
            found = join(found, other)
        return found

    def holds(self, record: Mapping[str, Any]) -> bool | None:
        found = {part.holds(record) for part in self.parts}
        decisive = not self.every
        return decisive if decisive in found else None if None in found else not decisive

    def may_hold(self, statistics: Mapping[str, Statistics]) -> bool:
        return (all if self.every else any)(part.may_hold(statistics) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Not(Where):
    part: Where

    @property
    def columns(self) -> frozenset[str]:
        return self.part.columns

    def mask(self, table: "pa.Table") -> "pa.ChunkedArray":
        return pc.invert(self.part.mask(table))

    def holds(self, record: Mapping[str, Any]) -> bool | None:
        found = self.part.holds(record)
        return None if found is None else not found

    def may_hold(self, statistics: Mapping[str, Statistics]) -> bool:
        return True


def _kind(value: object) -> type | None:
    """What compares with what: truth values, numbers and texts each with their own."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    return str if isinstance(value, str) else None


@lru_cache(maxsize=64)
def parse(text: str) -> Where:
    """A predicate from its text.

    Raises:
        ValueError: it is none; what was found and what was expected.
    """
    return _where(_tree(text))


def canonical(text: str) -> str:
    """The same predicate, spaces and brackets as Python writes them: what identity is made of."""
    return ast.unparse(_tree(text)) if text else ""


def _tree(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise ValueError(f"{text!r} cannot be read ({err}); {_EXPECTED}") from err


def _where(tree: ast.expr) -> Where:
    match tree:
        case ast.BoolOp(op=op, values=values):
            return _Joined(tuple(map(_where, values)), every=isinstance(op, ast.And))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _Not(_where(operand))
        case ast.Name(id=column):
            return _Compared(column, "equal", value=True)
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [left, *others]
            pairs = tuple(_comparison(*pair) for pair in zip(sides, ops, others, strict=False))
            return pairs[0] if len(pairs) == 1 else _Joined(pairs, every=True)
    raise ValueError(f"{ast.unparse(tree)!r} is no comparison; {_EXPECTED}")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Where:
    how = _COMPARISONS.get(type(op))
    if isinstance(left, ast.Name) and how:
        return _Compared(left.id, how, _constant(right))
    if isinstance(right, ast.Name) and how:
        return _Compared(right.id, _FLIPPED.get(how, how), _constant(left))
    if isinstance(left, ast.Name) and isinstance(op, ast.Is | ast.IsNot) and _is_null(right):
        return _Null(left.id, isinstance(op, ast.Is))
    if (
        isinstance(left, ast.Name)
        and isinstance(op, ast.In | ast.NotIn)
        and isinstance(right, ast.List | ast.Tuple)
    ):
        among = _Joined(tuple(_Compared(left.id, "equal", _constant(one)) for one in right.elts), every=False)
        if among.parts:
            return among if isinstance(op, ast.In) else _Not(among)
    told = ast.unparse(ast.Compare(left, [op], [right]))
    raise ValueError(f"{told!r} does not compare a column with a value; {_EXPECTED}")


def _is_null(side: ast.expr) -> bool:
    return (isinstance(side, ast.Name) and side.id == "null") or (
        isinstance(side, ast.Constant) and side.value is None
    )


def _constant(side: ast.expr) -> Value:
    try:
        value = ast.literal_eval(side)
    except ValueError:
        value = None
    if _kind(value) is None:
        raise ValueError(f"{ast.unparse(side)!r} is no number, text or truth value; {_EXPECTED}")
    found: Value = value
    return found


def wanted_groups(where: Where, metadata: Any, groups: range) -> Iterator[int]:
    """The row groups of a Parquet file that may hold a wanted row.

    Args:
        where: the predicate.
        metadata: the file's `pyarrow.parquet.FileMetaData`.
        groups: those that are asked for.
    """
    places = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
    for group in groups:
        statistics: dict[str, Statistics] = {}
        for column in where.columns & places.keys():
            known = metadata.row_group(group).column(places[column]).statistics
            if known is not None and known.has_min_max:
                statistics[column] = (known.min, known.max)
        if where.may_hold(statistics):
            yield group
