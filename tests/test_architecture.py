"""The house rules, read off the syntax trees: who imports whom, what a file may hold.

`violations(root)` names each breach as `file:line: rule`. The tests plant a breach of every rule in a small
tree and see it caught, then look at this repository.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"tasks": 0, "flows": 1, "deployments": 2}
SHARED = {"store", "runtime", "text", "settings", "policy"}
"""What every room may use; these themselves never know a room."""
SUBPROCESS_ROOMS = {"training", "evaluation"}
HEAVY = {"torch", "deepspeed", "transformers", "lm_eval"}
SHADOWED = {"tokenize", "evaluate"}
MAX_LINES = 400


@dataclass
class Module:
    """A file of the three packages, and what it imports, by line."""

    name: str
    file: Path
    tree: ast.Module
    ours: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)

    @property
    def room(self) -> str:
        """`store` of tasks.store.shard, `settings` of tasks.settings, nothing of tasks and of flows.*."""
        parts = self.name.split(".")
        return parts[1] if parts[0] == "tasks" and len(parts) > 1 else ""

    @property
    def noun(self) -> str:
        return self.name.rpartition(".")[2]


def modules_of(root: Path) -> dict[str, Module]:
    """Every module of the three packages, with its imports resolved to modules of ours where they are."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for layer in LAYERS
        for path in sorted((root / layer).rglob("*.py"))
    }
    found = {name: Module(name, file, ast.parse(file.read_text())) for name, file in files.items()}
    for module in found.values():
        for name, line in _imports(module.tree):
            parent = name.rpartition(".")[0]
            if name.split(".")[0] in LAYERS:
                target = name if name in found or parent not in found else parent
                module.ours.setdefault(target, line)
            else:
                module.others.setdefault(name.split(".")[0], line)
    return found


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def reaching(modules: dict[str, Module], packages: set[str]) -> dict[str, int]:
    """Modules that import one of these third parties, themselves or through ours, and in which line."""
    reached = {
        name: line
        for name, module in modules.items()
        for other, line in module.others.items()
        if other in packages
    }
    while True:
        more = {
            name: line
            for name, module in modules.items()
            for target, line in module.ours.items()
            if target in reached and name not in reached
        }
        if not more:
            return reached
        reached |= more


def violations(root: Path) -> list[str]:
    """Each breach of the house rules in the packages and tests of `root`, as `file:line: rule`."""
    modules = modules_of(root)
    found: list[tuple[Path, int, str]] = []
    for module in modules.values():
        found += [(module.file, line, rule) for line, rule in _in_file(module)]
        found += [(module.file, line, rule) for line, rule in _in_imports(module)]
    for name, line in reaching(modules, {"prefect"}).items():
        module = modules[name]
        task = module.noun == "task" and module.name.count(".") == 2
        if module.room and not task and name != "tasks.policy":
            found.append(
                (module.file, line, "rule 3: Prefect is spoken only in flows, task.py and tasks/policy.py")
            )
    for name, line in reaching(modules, HEAVY).items():
        module = modules[name]
        if module.room not in SUBPROCESS_ROOMS or module.noun in {"task", "config"}:
            found.append(
                (
                    module.file,
                    line,
                    "rule 4: torch and its like only in subprocess modules of training, evaluation",
                )
            )
    found += [
        (modules[cycle[0]].file, 1, f"rule 1: a cycle: {' -> '.join(cycle)}") for cycle in _cycles(modules)
    ]
    found += [
        (file, 1, "rule 6: tests hold no __init__.py")
        for file in sorted((root / "tests").rglob("__init__.py"))
    ]
    return sorted(f"{file.relative_to(root)}:{line}: {rule}" for file, line, rule in found)


def _in_imports(module: Module) -> Iterator[tuple[int, str]]:
    layer = module.name.split(".")[0]
    for target, line in module.ours.items():
        parts = target.split(".")
        room = parts[1] if parts[0] == "tasks" and len(parts) > 1 else ""
        if LAYERS[parts[0]] > LAYERS[layer]:
            yield line, f"rule 1: {layer} imports {parts[0]}; deployments -> flows -> tasks, never back"
        if module.room and room and room not in SHARED | {module.room}:
            who = "a shared module" if module.room in SHARED else f"the room {module.room}"
            yield line, f"rule 2: {who} imports the room {room}"
        if len(parts) == 3 and room and parts[2] == "task" and layer != "flows":
            yield line, "rule 3: only flows import a task.py"


def _in_file(module: Module) -> Iterator[tuple[int, str]]:
    lines = len(module.file.read_text().splitlines())
    if lines > MAX_LINES:
        yield lines, f"a file has at most {MAX_LINES} lines"
    if module.file.name == "__init__.py" and (
        len(module.tree.body) != 1 or not ast.get_docstring(module.tree)
    ):
        yield 1, "an __init__.py is one docstring"
    package = module.file.parent.name
    if module.file.name == "__init__.py" and (package in SHADOWED or package in sys.stdlib_module_names):
        yield 1, f"rule 5: rooms are nouns, {package} shadows a library"
    if module.noun in SHADOWED and module.file.name != "__init__.py":
        yield 1, f"rule 5: functions are verbs, {module.noun} shadows a library"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "rule 1: absolute imports only"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    yield inner.lineno, "rule 1: no imports inside functions"


def _cycles(modules: dict[str, Module]) -> Iterator[list[str]]:
    """Each cycle found on a walk of the imports, from its first module in alphabetical order."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> Iterator[list[str]]:
        if name in trail:
            cycle = trail[trail.index(name) :]
            first = cycle.index(min(cycle))
            yield [*cycle[first:], *cycle[: first + 1]]
        elif name not in done and name in modules:
            for target in sorted(modules[name].ours):
                yield from visit(target, [*trail, name])
            done.add(name)

    for name in sorted(modules):
        yield from visit(name, [])


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for folder in file.relative_to(root).parents:
            init = root / folder / "__init__.py"
            if folder.parts and folder.parts[0] in LAYERS and not init.exists():
                init.write_text('"""A room."""\n')


CLEAN = {
    "tasks/store/shard.py": "import json\n",
    "tasks/policy.py": "import prefect\n",
    "tasks/dedup/minhash.py": "import tasks.store.shard\n",
    "tasks/dedup/task.py": "from tasks import policy\nfrom tasks.dedup.minhash import band\n",
    "tasks/training/config.py": "from tasks.store import shard\n",
    "tasks/training/loop.py": "import torch.distributed\n",
    "tasks/training/__main__.py": "from tasks.training import loop\n",
    "flows/corpus.py": "from prefect import flow\nfrom tasks.dedup import task as dedup_task\n",
    "deployments/deploy.py": "from flows.corpus import build\n",
}

PLANTED = [
    ("tasks/dedup/lsh.py", "import json\nfrom flows.corpus import build\n", 2, "rule 1: tasks imports flows"),
    ("flows/plan.py", "from deployments import deploy\n", 1, "rule 1: flows imports deployments"),
    ("tasks/dedup/lsh.py", "from . import minhash\n", 1, "rule 1: absolute imports only"),
    ("tasks/dedup/lsh.py", "def f():\n    import json\n", 2, "rule 1: no imports inside functions"),
    (
        "flows/plan.py",
        "class A:\n    async def f(self):\n        from tasks import store\n",
        3,
        "inside functions",
    ),
    ("tasks/store/shard.py", "from tasks.store import lock\n", 1, "rule 1: a cycle: tasks.store.lock ->"),
    (
        "tasks/dedup/lsh.py",
        "from tasks.training.config import C\n",
        1,
        "rule 2: the room dedup imports the room tr",
    ),
    ("tasks/store/fingerprint.py", "from tasks.dedup import minhash\n", 1, "rule 2: a shared module imports"),
    ("tasks/settings.py", "import tasks.dedup.minhash\n", 1, "rule 2: a shared module imports"),
    ("tasks/dedup/lsh.py", "from prefect.cache_policies import NONE\n", 1, "rule 3: Prefect is spoken only"),
    ("tasks/dedup/lsh.py", "\nfrom tasks.policy import node_task\n", 2, "rule 3: Prefect is spoken only"),
    ("tasks/dedup/deep/task.py", "import prefect\n", 1, "rule 3: Prefect is spoken only"),
    ("tasks/dedup/lsh.py", "from tasks.dedup.task import mark\n", 1, "rule 3: only flows import a task.py"),
    ("deployments/deploy.py", "from tasks.dedup import task\n", 1, "rule 3: only flows import a task.py"),
    ("tasks/dedup/lsh.py", "import torch\n", 1, "rule 4: torch and its like"),
    ("tasks/training/task.py", "from transformers import AutoConfig\n", 1, "rule 4: torch and its like"),
    ("tasks/training/task.py", "from tasks.training.loop import train\n", 1, "rule 4: torch and its like"),
    ("flows/gpu.py", "from tasks.training import loop\n", 1, "rule 4: torch and its like"),
    ("tasks/tokenize/__init__.py", '"""A room."""\n', 1, "rule 5: rooms are nouns, tokenize shadows"),
    ("tasks/evaluation/evaluate.py", "", 1, "rule 5: functions are verbs, evaluate shadows"),
    ("tests/store/__init__.py", "", 1, "rule 6: tests hold no __init__.py"),
    ("tasks/dedup/__init__.py", '"""A room."""\nimport json\n', 1, "an __init__.py is one docstring"),
    ("tasks/dedup/lsh.py", "x = 1\n" * 401, 401, "a file has at most 400 lines"),
]


def test_a_clean_tree_has_no_violations(tmp_path: Path) -> None:
    plant(tmp_path, CLEAN)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(("file", "source", "line", "rule"), PLANTED)
def test_a_planted_violation_is_named_with_its_line(
    tmp_path: Path, file: str, source: str, line: int, rule: str
) -> None:
    plant(tmp_path, CLEAN | {"tasks/store/lock.py": "from tasks.store.shard import read\n", file: source})
    told = violations(tmp_path)
    place = "tasks/store/lock.py" if "a cycle" in rule else file
    assert any(one.startswith(f"{place}:{line}: ") and rule in one for one in told), told


@pytest.mark.slow
def test_this_repository_keeps_the_rules() -> None:
    assert violations(ROOT) == []


def test_pytest_runs_as_the_rules_say() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--import-mode=importlib" in options["addopts"]
    assert options["pythonpath"] == ["."]


def test_the_readme_has_each_room_in_its_own_words() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = []
    for file in sorted((ROOT / "tasks").glob("*/__init__.py")):
        text = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
        if f"| `{file.parent.name}` | {text} |" not in readme:
            missing.append(f"| `{file.parent.name}` | {text} |")
    assert not missing, "README.md lacks these rows of its rooms table:\n" + "\n".join(missing)


@pytest.mark.slow
def test_what_is_no_subprocess_imports_without_prefect_and_torch() -> None:
    modules = modules_of(ROOT)
    slow = reaching(modules, {"prefect"}) | reaching(modules, HEAVY)
    light = [name for name, module in modules.items() if name not in slow and module.noun != "__main__"]
    assert "tasks.store.shard" in light
    code = f"import importlib, sys\nfor name in {light!r}: importlib.import_module(name)\n"
    code += f"print(*sorted({HEAVY | {'prefect'}!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"imported by a module that should not: {done.stdout}"
