from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.store.errors import SourceError
from tasks.store.models import resolve_model
from tasks.store.node import Node
from tasks.tokenization.config import (
    TokenizationConfig,
    node,
    tokenizer_of,
    trained_tokenizer_node,
    trained_tokenizer_of,
)

DOWNLOAD = Node(stage="download", version=1, config={}, inputs={"file": "a"})
DEDUP = Node(stage="dedup", version=1, config={}, inputs={"signatures": "b"})


def test_a_moved_tokenizer_is_the_same_computation(byte_level: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in byte_level.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    one, two = (
        node(
            TokenizationConfig(tokenizer=str(place)),
            DOWNLOAD,
            DEDUP,
            tokenizer_of(resolve_model(str(place), folder=tmp_path, weights=False)),
        )
        for place in (byte_level, moved)
    )
    assert one.fingerprint == two.fingerprint
    assert one.reads != two.reads


def test_another_eos_in_the_models_config_is_another_computation(byte_level: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((byte_level / "tokenizer.json").read_bytes())
    prints = set()
    for eos in (1, 2):
        (tmp_path / "config.json").write_text(f'{{"eos_token_id": {eos}}}')
        ref = tokenizer_of(resolve_model("./", folder=tmp_path, weights=False))
        prints.add(node(TokenizationConfig(), DOWNLOAD, DEDUP, ref).fingerprint)
    assert len(prints) == 2


def test_a_trained_tokenizer_is_known_before_it_is_trained() -> None:
    config = TokenizationConfig(train_vocab_size=512)
    trained = trained_tokenizer_node(config, DOWNLOAD, DEDUP)
    ref = trained_tokenizer_of(trained)
    assert (ref.eos_id, ref.vocab_size, ref.address) == (2, 512, {"node": trained.path})
    made = node(config, DOWNLOAD, DEDUP, ref)
    assert made.inputs == {"dedup": DEDUP.fingerprint, "tokenizer": trained.fingerprint, "eos": "2"}
    assert made.config == {}, "the size stands in the tokenizer's fingerprint"


def test_thresholds_of_quality_retrain_no_tokenizer() -> None:
    a, b = (TokenizationConfig(train_vocab_size=512, min_bytes_per_token=x) for x in (1.0, 2.0))
    assert trained_tokenizer_node(a, DOWNLOAD, DEDUP) == trained_tokenizer_node(b, DOWNLOAD, DEDUP)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"tokenizer": "gpt2", "train_vocab_size": 512}, "exclude each other"),
        ({"train_vocab_size": 100}, "at least 260"),
        ({"max_run_fraction": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TokenizationConfig.model_validate(fields)


def test_a_model_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceError, match="holds no tokenizer"):
        tokenizer_of(resolve_model("./", folder=tmp_path, weights=False))
