"""Which names lm-eval knows, without importing it (2 s) or building its full index (10 to 45 s)."""

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.store.errors import RecipeError

FOLDERS = {
    "mmlu": "mmlu/default",
    "arc_challenge": "arc",
    "arc_easy": "arc",
    "winogrande": "winogrande",
    "hellaswag": "hellaswag",
    "boolq": "super_glue/boolq",
    "piqa": "piqa",
}
"""The paper's benchmarks and the folders of lm_eval/tasks that define them: .3 s to index the largest."""


def definitions() -> Path:
    """The folder of lm-eval's task definitions."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None, "lm_eval is a dependency of this package"
    assert spec.origin is not None
    return Path(spec.origin).with_name("tasks")


def require_benchmarks(names: Iterable[str]) -> None:
    """Refuse names that occur in none of lm-eval's definitions.

    The seven of `FOLDERS` cost nothing; others a look through 15,000 small files, a second or two.

    Raises:
        RecipeError: one is unknown; says what it may have meant.
    """
    left = [name for name in names if name not in FOLDERS]
    if not left:
        return
    known = set(_defined())
    for name in left:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            raise RecipeError(
                f"evaluation.benchmarks: lm-eval knows no benchmark {name!r}{meant} "
                "(`lm-eval ls tasks` lists them)"
            )


_DEFINED = re.compile(rb"^[\"']?(?:task|group)[\"']?[ \t]*:[ \t]*[\"']?([A-Za-z0-9][^\s\"'#]*)", re.MULTILINE)


def _defined() -> Iterator[str]:
    for file in definitions().rglob("*.yaml"):
        for match in _DEFINED.finditer(file.read_bytes()):
            yield match[1].decode()
