"""A cluster that cannot be used is told before anything is submitted to it."""

import re
from importlib.util import find_spec

import pytest

from flows.cluster import on_runner
from flows.corpus import build_corpus
from tasks.store.errors import ResourceError
from tests.services import free_port

pytestmark = pytest.mark.flow


def test_threads_are_what_the_flow_has() -> None:
    assert on_runner(build_corpus, "threads") is build_corpus


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_cluster_without_its_extra_or_that_does_not_answer_is_told_with_what_to_do(kind: str) -> None:
    installed = find_spec(f"prefect_{kind}") is not None
    expected = "nobody answers there" if installed else re.escape(f"pip install 'daptflow[{kind}]'")
    with pytest.raises(ResourceError, match=expected):
        on_runner(build_corpus, f"{kind}:tcp://127.0.0.1:{free_port()}")
