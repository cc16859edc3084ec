import pytest
import yaml

from tasks.training.card import model_card
from tasks.training.config import Files, TrainingConfig, node
from tasks.training.replay import Replay
from tasks.training.schedule import Schedule
from tests.training.test_training_config import CORPORA, TOKENIZER


@pytest.mark.parametrize(
    ("reference", "revision", "told"),
    [("owner/model", "a" * 40, "owner/model"), ("/home/somebody/model", "", None), ("models/mine", "", None)],
)
def test_the_card_names_a_base_of_the_hub_and_no_path(
    reference: str, revision: str, told: str | None
) -> None:
    base = Files("b" * 64, {"folder": "/x", "reference": reference, "revision": revision})
    config = TrainingConfig(base_model="a", global_batch_sequences=10)
    made = node(config, seed=1, base=base, tokenizer=TOKENIZER, corpora=CORPORA)
    result = {"curve": [[1, 640, 3.5, 1e-4, 1.0], [20, 12800, 2.25, 1e-5, 1.0]]}
    card = model_card(made, config, Schedule.of(config, (100, 200)), 64, result)
    _, metadata, text = card.split("---\n", 2)
    assert yaml.safe_load(metadata).get("base_model") == told
    assert "/home" not in card
    assert "continued on 12,800 tokens" in text
    assert "general text" not in text
    assert "3.5000, 2.2500" in text
    assert made.fingerprint in text


def test_the_card_tells_of_replayed_text() -> None:
    config = TrainingConfig(base_model="a", global_batch_sequences=10)
    base = Files("b" * 64, {"folder": "/x", "reference": "", "revision": ""})
    given = {"seed": 1, "base": base, "tokenizer": TOKENIZER, "corpora": CORPORA}
    made = node(config, **given, replay_fraction=0.05, replayed=CORPORA)
    result = {"curve": [[1, 640, 3.5, 1e-4, 1.0]]}
    card = model_card(made, config, Schedule.of(config, (100, 200), Replay(0.05, 20)), 64, result)
    assert "on a domain and, 5 % of the sequences, on general text, with AdamW" in card
    assert "continued on 13,440 tokens" in card  # floor(200 / .95) of ten a step
