"""The digest that golden files hold says what a table says, and nothing of how it lies in memory."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Digest = Callable[[pa.Table], str]
TABLE = pa.table(
    {
        "id": pa.array(["a", "bc", None, "d"]),
        "kept": pa.array([True, False, None, True]),
        "hash": pa.array([b"12", b"34", b"56", None], pa.binary(2)),
        "ids": pa.array([[1, 2], None, [], [3]], pa.list_(pa.uint16())),
        "row": pa.array([[1, 2], [3, 4], None, [5, 6]], pa.list_(pa.uint32(), 2)),
        "names": pa.array([["x"], ["y", None], [], None], pa.list_(pa.string())),
        "score": pa.array([0.5, None, 1.5, 2.5]),
    }
)


def test_chunks_offsets_and_parquet_do_not_change_it(logical_digest: Digest, tmp_path: Path) -> None:
    digest = logical_digest(TABLE)
    padded = pa.concat_tables([TABLE, TABLE, TABLE]).slice(4, 4)
    assert logical_digest(padded) == digest
    assert logical_digest(pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])) == digest
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=1)
    assert logical_digest(pq.read_table(tmp_path / "a.parquet")) == digest
    assert logical_digest(TABLE.slice(0, 0)) == logical_digest(TABLE.schema.empty_table())


def test_each_value_null_name_and_type_changes_it(logical_digest: Digest) -> None:
    def column(values: list[object], kind: pa.DataType, name: str = "a") -> str:
        return logical_digest(pa.table({name: pa.array(values, kind)}))

    lists = pa.list_(pa.uint16())
    digests = [
        column([1, 2], pa.int32()),
        column([1, 3], pa.int32()),
        column([1, None], pa.int32()),
        column([1, 2], pa.int64()),
        column([1, 2], pa.int32(), "b"),
        column(["ab", "c"], pa.string()),
        column(["a", "bc"], pa.string()),
        column([[1, 2], []], lists),
        column([[1], [2]], lists),
        column([[1, 2], None], lists),
    ]
    assert len(set(digests)) == len(digests)


def test_a_missing_golden_file_tells_how_to_make_it(
    golden: Callable[[str, object], None], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--update-golden"):
        pytest.skip("it would be made")
    with pytest.raises(pytest.fail.Exception, match=r"pytest --update-golden tests/test_logical_digest.py::"):
        golden("no/such/golden", {})
