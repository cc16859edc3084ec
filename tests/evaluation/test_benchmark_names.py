import subprocess
import sys

import pytest

from tasks.evaluation.names import FOLDERS, definitions, require_benchmarks
from tasks.store.errors import RecipeError


def test_the_seven_are_known_where_their_folder_says() -> None:
    for name, folder in FOLDERS.items():
        texts = [file.read_text() for file in (definitions() / folder).glob("*.yaml")]
        assert any(f"task: {name}\n" in text or f"group: {name}\n" in text for text in texts)


@pytest.mark.slow
def test_names_are_checked_without_importing_lm_eval() -> None:
    code = (
        "import sys; from tasks.evaluation.names import require_benchmarks;"
        "require_benchmarks(['piqa', 'sciq']);"
        "assert not {'lm_eval', 'torch', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_an_unknown_name_is_refused_with_what_it_may_have_meant() -> None:
    with pytest.raises(RecipeError, match=r"no benchmark 'hellaswg'; did you mean hellaswag"):
        require_benchmarks(["piqa", "hellaswg"])
