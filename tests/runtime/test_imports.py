"""What is imported for good is left out of garbage collection, which goes on whatever the import came to."""

import gc
import sys
from pathlib import Path

import pytest

from tasks.runtime.imports import Late, import_for_good


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that notes whether collection is on while it is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "noting_its_import"
    (tmp_path / f"{name}.py").write_text("import gc\n\ncollecting = gc.isenabled()\n")
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_collection_is_off_for_an_import_alone(library: str) -> None:
    try:
        assert import_for_good(library).collecting is False
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_collection_goes_on_after_an_import_that_failed() -> None:
    try:
        with pytest.raises(ModuleNotFoundError):
            import_for_good("there.is.no.such.module")
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_late_module_is_imported_when_something_of_it_is_asked_for(library: str) -> None:
    late = Late(library)
    assert library not in sys.modules
    assert late.collecting is True
    assert library in sys.modules
