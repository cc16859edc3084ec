"""Identity: equal computations have equal fingerprints, and nothing else has."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tasks.store.config import StageConfig, how
from tasks.store.fingerprint import canonical_json, combined_digest, fingerprint, source_hash
from tasks.store.node import Node

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


class Inner(StageConfig):
    depth: int = 1


class Example(StageConfig):
    threshold: float = 0.7
    rules: list[str] = Field(default_factory=list)
    inner: Inner = Inner()
    workers: int = how(1)


@given(plain)
@pytest.mark.slow
def test_canonical_json_does_not_know_the_order_of_keys(value: Any) -> None:
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)
    assert canonical_json({"b": value, "a": 1}) == canonical_json({"a": 1, "b": value})


def test_canonical_json_is_compact_sorted_and_not_escaped() -> None:
    assert canonical_json({"b": [1, None, True], "a": "é\n"}) == '{"a":"é\\n","b":[1,null,true]}'


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": {"b": {1, 2}}}, r"\$\.a\.b is set"),
        ([Path("/data")], r"\$\[0\] is PosixPath"),
        ({"a": b"x"}, r"\$\.a is bytes"),
        ({1: "a"}, r"\$: the key 1 is int"),
        (object(), r"\$ is object"),
    ],
)
def test_what_has_no_canonical_json_is_refused_by_its_place(value: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_refuses_what_json_does_not_have(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([value])


def test_a_fingerprint_changes_with_each_of_its_four_parts() -> None:
    made = [
        fingerprint("dedup", 1, {"threshold": 0.7}, {"filtering": "aa"}),
        fingerprint("packing", 1, {"threshold": 0.7}, {"filtering": "aa"}),
        fingerprint("dedup", 2, {"threshold": 0.7}, {"filtering": "aa"}),
        fingerprint("dedup", 1, {"threshold": 0.8}, {"filtering": "aa"}),
        fingerprint("dedup", 1, {"threshold": 0.7}, {"filtering": "ab"}),
        fingerprint("dedup", 1, {"threshold": 0.7}, {"signatures": "aa"}),
    ]
    assert len(set(made)) == len(made)
    assert all(len(one) == 64 for one in made)


@pytest.mark.slow
@given(
    st.text(max_size=5),
    st.integers(),
    st.dictionaries(st.text(max_size=3), plain, max_size=3),
    st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3),
)
def test_a_fingerprint_is_the_digest_of_the_canonical_json_of_its_four_parts(
    stage: str, version: int, config: dict[str, Any], inputs: dict[str, str]
) -> None:
    body = {"stage": stage, "version": version, "config": config, "inputs": inputs}
    whole = canonical_json(body).encode()
    assert fingerprint(stage, version, config, inputs) == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("value", [1, None, b"aa", ["aa"]])
def test_an_input_that_is_no_string_has_no_fingerprint(value: Any) -> None:
    with pytest.raises(TypeError):
        fingerprint("dedup", 1, {}, {"filtering": value})


def test_a_fingerprint_stays_what_it_was_in_earlier_releases(golden: Any) -> None:
    config = Example(threshold=0.8, rules=["länge"], inner=Inner(depth=3), workers=4).identity()
    node = Node(
        stage="example", version=2, config=config, inputs={"source": "ab" * 32}, reads={"at": "/anywhere"}
    )
    golden("store/fingerprint", {"config": config, "fingerprint": node.fingerprint, "path": node.path})


def test_the_identity_of_a_config_leaves_out_defaults_at_every_depth() -> None:
    assert Example().identity() == {}
    assert Example(threshold=0.7, rules=[], inner=Inner(depth=1)).identity() == {}
    assert Example(inner=Inner(depth=2)).identity() == {"inner": {"depth": 2}}


def test_what_says_how_is_no_identity() -> None:
    assert Example(workers=8).identity() == {}


def test_where_a_node_reads_is_no_identity() -> None:
    nodes = [Node(stage="s", version=1, config={}, inputs={}, reads={"at": at}) for at in ("/a", "s3://b")]
    assert nodes[0].fingerprint == nodes[1].fingerprint


def test_combined_digest_knows_order_and_borders() -> None:
    assert len({combined_digest(d) for d in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""])}) == 4


def test_the_source_hash_of_a_room_is_that_of_its_python_files() -> None:
    assert source_hash("tasks.store") != source_hash("tasks.runtime")
    assert len(source_hash("tasks.store")) == 64
