"""Which code made a node: the package's version and, where it runs from a checkout, git's commit.

Advisory, as drift is: recorded in manifests, never part of an identity.
"""

import importlib.metadata
import os
import subprocess
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_GIT = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
_GIT_S = 10


@cache
def package_version() -> str:
    """The version installed; "" where the code is not installed."""
    try:
        return importlib.metadata.version("daptflow")
    except importlib.metadata.PackageNotFoundError:
        return ""


@cache
def code_commit() -> str:
    """The commit of the checkout the code lies in, with `-dirty` where files differ from it; "" elsewhere.

    Asked once a process: 20 ms.
    """
    if not (_ROOT / ".git").exists():  # installed, perhaps inside somebody else's repository
        return ""
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        told = subprocess.run(
            _GIT, check=False, cwd=_ROOT, env=env, capture_output=True, text=True, timeout=_GIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
