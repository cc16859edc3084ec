"""Where a planted secret stands: in which files of a folder, in which texts."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq


def leaks(folder: Path, secrets: Sequence[str]) -> list[str]:
    """`path: secret` for each file that holds one; Parquet is read, its schema too."""
    found, looked_at = [], 0
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet" and content[-4:] == b"PAR1":
                content += repr(pq.read_table(path).to_pylist()).encode() + str(pq.read_schema(path)).encode()
            found += [f"{path}: {secret}" for secret in secrets if secret.encode() in content]
            looked_at += 1
    assert looked_at > 0, f"{folder} holds no file"
    return found


def leaked(text: str, secrets: Sequence[str]) -> list[str]:
    """Those secrets that a text holds."""
    return [secret for secret in secrets if secret in text]
