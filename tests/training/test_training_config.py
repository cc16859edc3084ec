import pytest
from pydantic import ValidationError

from tasks.store.node import Node
from tasks.training.config import (
    Files,
    Selective,
    TrainingConfig,
    base_node,
    config_of,
    how_of,
    node,
    reference_node,
    references_of,
)
from tasks.training.run import thinned
from tasks.training.zero import deepspeed_config, environment

BASE = Files("b" * 64, {"folder": "/models/tiny", "reference": "tiny", "revision": ""})
TOKENIZER = Files("c" * 64, {"folder": "/models/tiny", "reference": "tiny", "revision": ""})
CORPORA = [Node(stage="corpus", version=1, config={"sequences": n}, inputs={}) for n in (100, 200)]


def made(config: TrainingConfig, *, corpora: list[Node] = CORPORA, seed: int = 1) -> Node:
    return node(config, seed=seed, base=BASE, tokenizer=TOKENIZER, corpora=corpora)


def test_how_it_is_computed_and_the_models_name_are_no_identity() -> None:
    plain = made(TrainingConfig(base_model="a"))
    other = TrainingConfig(
        base_model="b",
        zero_stage=1,
        offload="optimizer",
        gradient_checkpointing=True,
        micro_batch=4,
        checkpoint_every=7,
    )
    assert made(other).fingerprint == plain.fingerprint


def test_what_is_computed_is_identity() -> None:
    plain = TrainingConfig(base_model="a")
    others = [
        made(TrainingConfig(base_model="a", learning_rate=2e-4)),
        made(TrainingConfig(base_model="a", betas=(0.9, 0.999))),
        made(TrainingConfig(base_model="a", document_mask=True)),
        made(TrainingConfig(base_model="a", eval_at=(0, 0.5, 1))),
        made(plain, seed=2),
        made(plain, corpora=CORPORA[1:]),  # the same corpus, but no border at 100
        made(plain, corpora=CORPORA[:1]),
    ]
    assert len({made(plain).fingerprint, *(other.fingerprint for other in others)}) == 8


def test_a_reference_is_identity_by_its_files_and_not_by_its_name() -> None:
    def reference(digest: str, **told: bool) -> Node:
        mask = {"document_mask": False, **told}
        return reference_node("packing/ab/" + "a" * 64, model=digest, reads={}, precision="bf16", **mask)

    def selecting(name: str, digest: str, fraction: float = 0.5) -> Node:
        config = TrainingConfig(base_model="a", selective=Selective(reference=name, fraction=fraction))
        return node(
            config,
            seed=1,
            base=BASE,
            tokenizer=TOKENIZER,
            corpora=CORPORA,
            references=[reference(digest)],
        )

    one = selecting("one", "d" * 64)
    assert selecting("other", "d" * 64).fingerprint == one.fingerprint
    others = [
        selecting("one", "e" * 64),
        selecting("one", "d" * 64, 0.6),
        made(TrainingConfig(base_model="a")),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert [found.path for found in references_of(one)] == [reference("d" * 64).path]
    assert reference("d" * 64, document_mask=True).fingerprint != reference("d" * 64).fingerprint
    back, _ = config_of(one, {})
    assert back.selective is not None
    assert back.selective.fraction == 0.5


def test_the_config_comes_back_from_a_node_and_how() -> None:
    config = TrainingConfig(base_model="tiny", learning_rate=2e-4, zero_stage=2, micro_batch=3)
    assert config_of(made(config), how_of(config, 2)) == (config, 1)


def test_a_base_is_known_by_seed_model_and_tokenizer() -> None:
    base = base_node(seed=1, model=BASE, tokenizer=TOKENIZER)
    assert base.fingerprint != base_node(seed=2, model=BASE, tokenizer=TOKENIZER).fingerprint
    assert Files.of_node(base) == Files(base.fingerprint, {"node": base.path})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"schedule": "linear"}, "cosine.*wsd"),
        ({"continuation": "extend", "epochs": 2}, "epochs=2.*in another order"),
        ({"schedule": "wsd", "warmup_fraction": 0.5, "anneal_fraction": 0.6}, "more than all steps"),
        ({"schedule": "infinite", "warmup_fraction": 0.5, "cooldown_fraction": 0.5}, "more than all steps"),
        ({"schedule": "infinite", "min_lr_fraction": 0}, "never gets there"),
        ({"zero_stage": 0}, "bf16.*drifts.*zero_stage=1"),
        ({"zero_stage": 2, "offload": "all"}, "needs zero_stage=3"),
        ({"zero_stage": 0, "precision": "fp32", "offload": "optimizer"}, "needs zero_stage 1 to 3"),
        ({"betas": [0.9, 1.0]}, "below 1"),
        ({"global_batch": 8}, "global_batch"),
        ({"base_model": ""}, "base_model"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_the_reason(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TrainingConfig.model_validate({"base_model": "a", **fields})


def test_deepspeed_is_told_the_stage_the_offload_and_to_sum_in_fp32() -> None:
    given = deepspeed_config(
        TrainingConfig(base_model="a", offload="all"), micro_batch=2, grad_accumulation_steps=3
    )
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    assert given["zero_optimization"] == zero
    assert given["data_types"] == {"grad_accum_dtype": "fp32"}
    assert (given["train_micro_batch_size_per_gpu"], given["gradient_accumulation_steps"]) == (2, 3)
    fp32 = deepspeed_config(
        TrainingConfig(base_model="a", precision="fp32"), micro_batch=1, grad_accumulation_steps=1
    )
    assert "bf16" not in fp32


def test_ranks_share_the_cores() -> None:
    assert [environment(ranks, cores=8)["OMP_NUM_THREADS"] for ranks in (1, 3, 16)] == ["8", "2", "1"]


def test_a_thinned_curve_keeps_its_ends() -> None:
    rows = [[float(n), 0.0] for n in range(1234)]
    found = thinned(rows, 500)
    assert (len(found), found[0], found[-1]) == (500, rows[0], rows[-1])
    assert thinned(rows[:3], 500) == rows[:3]


@pytest.mark.parametrize(
    "given", [(0.5,), (0, 0.5), (0.1, 1), (0, 0.5, 0.5, 1), (0, 0.6, 0.5, 1), (0, 1.5), (-1, 1)]
)
def test_evaluations_on_the_way_grow_from_the_start_to_the_end(given: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="expected fractions of the steps, growing from 0"):
        TrainingConfig(base_model="a", eval_at=given)


def test_no_evaluation_on_the_way_is_no_identity() -> None:
    plain = made(TrainingConfig(base_model="a"))
    assert made(TrainingConfig(base_model="a", eval_at=())).fingerprint == plain.fingerprint
    kept = made(TrainingConfig(base_model="a", eval_at=(0, 0.25, 1)))
    assert config_of(kept, how_of(TrainingConfig(base_model="a"), 1))[0].eval_at == (0, 0.25, 1)
