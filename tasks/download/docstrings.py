"""Real text that any Python machine has: the documentation in docstrings, one document a module.

Modules are found by the standard library's folder or by what distributions say they installed, and read with
`ast`: nothing is imported, no code runs. Left out are tests and vendored copies of other projects. A document
is the module's docstring, then its classes' and functions', in source order, each under its qualified name. A
module that is nothing but a table of texts (`pydoc_data.topics`, the language reference) is a document a
text.
"""

import ast
import csv
import os
import re
import sysconfig
import threading
import warnings
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from tasks.download.config import SourceConfig
from tasks.store.errors import SourceError

MIN_CHARACTERS = 200
"""Shorter documents are dropped: one-line stubs. Measured: 141 of 675 documents of the standard library."""

TEXT_FRACTION = 0.3
"""Docstring text in a byte of source, for estimates. Measured: Python 3.11's standard library 0.20 (2.2 of
11.1 MB), numpy, sympy and networkx 0.35 (8.8 of 25.0 MB)."""

_NOT_STDLIB = {
    "__pycache__",
    "site-packages",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "lib-dynload",
    "_bundled",
}
_TESTS = {"test", "tests", "_tests", "__pycache__"}
_VENDORED = {
    "_vendor",
    "vendor",
    "_vendored",
    "vendored",
    "_vendored_packages",
    "externals",
    "extern",
    "third_party",
}
_LEFT_OUT = _TESTS | _VENDORED
_FILENAME = "<docstrings>"
_parsing = threading.Lock()


def module_files(config: SourceConfig) -> list[str]:
    """Absolute paths of the modules that a docstrings source reads, in order.

    The order is that of paths; of installed packages, first that of the distributions.

    Raises:
        SourceError: a chosen distribution is not installed, or does not tell its files.
    """
    if config.subset == "stdlib":
        return _stdlib(sysconfig.get_path("stdlib"))
    installed: dict[str, Distribution] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:
            installed.setdefault(_normalised(name), distribution)
    if not config.packages:
        return [path for name in sorted(installed) for path in _modules(installed[name])]
    chosen = []
    for package in config.packages:
        named = installed.get(_normalised(package))
        found = _modules(named) if named else []
        if not found:
            why = "is installed without a list of modules" if named else "is not installed"
            raise SourceError(f"package {package!r} {why}; install it, or leave it out of packages")
        chosen += found
    return chosen


def _stdlib(root: str) -> list[str]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _NOT_STDLIB | _LEFT_OUT)
        found += [f"{folder}/{name}" for name in names if _is_module(name)]
    if not found:
        raise SourceError(f'{root} holds no modules of the standard library; use subset = "installed"')
    return sorted(found, key=lambda path: path.split("/"))


def _modules(distribution: Distribution) -> list[str]:
    """Modules of one distribution that lie under its own root."""
    # RECORD itself: `distribution.files` makes objects of it, at seven times the cost (20,000: .49 s).
    record = distribution.read_text("RECORD")
    if record is not None:
        listed = [row[0] for row in csv.reader(record.splitlines()) if row]
    else:
        listed = [str(path) for path in distribution.files or []]
    root = str(Path(str(distribution.locate_file(""))).absolute())
    wanted = []
    for name in listed:
        parts = name.split("/")
        if _is_module(parts[-1]) and parts[0] not in ("..", "") and _LEFT_OUT.isdisjoint(parts):
            wanted.append(name)
    paths = (f"{root}/{name}" for name in sorted(wanted, key=lambda name: PurePosixPath(name).parts))
    return [path for path in paths if Path(path).is_file()]


def _normalised(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_module(name: str) -> bool:
    return name.endswith(".py") and not name.startswith("test_") and name != "conftest.py"


def documents(source: bytes) -> Iterator[tuple[str | None, str]]:
    """The documents of a module.

    Args:
        source: the file's bytes.

    Yields:
        A text and "", or None and the reason why there is none: `bad_python`, `no_docstrings`,
        `short_docstrings`.
    """
    try:
        module = _parse(source)
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # a null byte, a nest too deep: what ast raises
        yield None, "bad_python"
        return
    texts = _table(module) or [_document(module)]
    for text in texts:
        if len(text) >= MIN_CHARACTERS:
            yield text, ""
        else:
            yield None, "short_docstrings" if text else "no_docstrings"


def _parse(source: bytes) -> ast.Module:
    """Parse without letting the module's own warnings out; the filter list is shared by all threads."""
    with _parsing:
        # A filter for this file name alone, put first again each time: others restore older lists of filters.
        warnings.filterwarnings("ignore", module=_FILENAME)
        return ast.parse(source, filename=_FILENAME)


def _document(module: ast.Module) -> str:
    pieces = []
    own = ast.get_docstring(module)
    if own:
        pieces.append(own)
    for name, definition in _definitions(module):
        text = ast.get_docstring(definition)
        if text:
            pieces.append(f"{name}\n{text}")
    return "\n\n".join(piece.strip() for piece in pieces).strip()


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(module: ast.Module) -> Iterator[tuple[str, _Definition]]:
    """Qualified names in source order; into classes, `if` and `try`, not into functions.

    A stack, because a chain of `elif` nests as deep as it is long.
    """
    stack: list[tuple[str, ast.AST]] = [("", module)]
    while stack:
        prefix, item = stack.pop()
        name = prefix
        if isinstance(item, _Definition):
            name = f"{prefix}{item.name}"
            yield name, item
            if not isinstance(item, ast.ClassDef):
                continue
            name += "."
        elif not isinstance(item, ast.Module | ast.If | ast.Try | ast.ExceptHandler | ast.With):
            continue
        stack.extend((name, child) for child in reversed(list(ast.iter_child_nodes(item))))


def _table(module: ast.Module) -> list[str]:
    """The texts of a module that only assigns a dict of them to `topics`; else none."""
    code = [item for item in module.body if not isinstance(item, ast.Expr)]
    if len(code) != 1 or not isinstance(code[0], ast.Assign) or not isinstance(code[0].value, ast.Dict):
        return []
    target = code[0].targets[0]
    if not isinstance(target, ast.Name) or target.id != "topics":
        return []
    texts = [item.value for item in code[0].value.values if isinstance(item, ast.Constant)]
    return [text.strip() for text in texts if isinstance(text, str)]
