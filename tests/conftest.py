"""What all tests share: golden files, logical digests, real text, and the promise of the unit lane."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
UNIT_LANE = "not slow and not flow and not train and not gpu"
_MARKED = re.compile(r"^pytestmark\b.*\bpytest\.mark\.(flow|train|gpu)\b", re.MULTILINE)

settings.register_profile("daptflow", derandomize=True, deadline=None, database=None)
settings.load_profile("daptflow")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden with what is found now"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import, in the unit lane, a file that is all flow, train or gpu: torch is slow."""
    if config.option.markexpr != UNIT_LANE or collection_path.suffix != ".py":
        return None
    return True if _MARKED.search(collection_path.read_text()) else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The unit lane imports neither Prefect nor torch: each costs seconds at every start."""
    imported = sorted({"prefect", "torch"} & sys.modules.keys())
    if session.config.option.markexpr == UNIT_LANE and imported:
        sys.stderr.write(f"\nthe unit lane imported {' and '.join(imported)}: mark the test flow or train\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def digest_of_array(array: pa.Array, into: "hashlib._Hash") -> None:
    """Hash what an array says (type, nulls, values), whatever its offsets, padding and chunks are."""
    kind = array.type
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    into.update(
        f"{type(kind).__name__ if nested else kind} {len(array)};".encode()
    )  # Parquet renames a list's items
    valid = array.is_valid()
    into.update(bytes(valid.to_numpy(zero_copy_only=False)))
    present = array.filter(valid)
    if nested:
        lengths = present.value_lengths().cast(pa.int64())
        into.update(lengths.to_numpy(zero_copy_only=False).tobytes())
        digest_of_array(present.flatten(), into)
    elif pa.types.is_primitive(kind):
        into.update(present.to_numpy(zero_copy_only=False).tobytes())
    else:
        for value in present.to_pylist():
            raw = value if isinstance(value, bytes) else repr(value).encode()
            into.update(f"{len(raw)}:".encode() + raw)


@pytest.fixture(scope="session")
def logical_digest() -> Callable[[pa.Table], str]:
    """`logical_digest(table)`: sha256 of a table's schema and values.

    Parquet's bytes carry a library's version, and chunks are an accident of reading; neither is in it.
    """

    def digest(table: pa.Table) -> str:
        total = hashlib.sha256()
        for name in table.column_names:
            total.update(f"{name}:".encode())
            chunks = table[name].combine_chunks()
            digest_of_array(chunks, total)
        return total.hexdigest()

    return digest


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """`golden(name, value)`: the value (plain JSON) is the one in tests/golden/<name>.json.

    `pytest --update-golden` rewrites the file; its diff is reviewed, and where a stage's output changed its
    `VERSION` is bumped in the same commit.
    """

    def compare(name: str, value: Any) -> None:
        file = GOLDEN / f"{name}.json"
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return
        command = f"pytest --update-golden {request.node.nodeid}"
        if not file.exists():
            pytest.fail(f"{file} is missing; make it with: {command}", pytrace=False)
        expected = json.loads(file.read_text())
        assert json.loads(text) == expected, (
            f"{file} says otherwise; if the change is meant, bump VERSION and: {command}"
        )

    return compare


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real text beside the checkout ($DAPT_TEST_DATA), for tests that are better for it."""
    folder = Path(os.environ.get("DAPT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("../shared/data is not here")
    return folder
