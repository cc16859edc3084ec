import pytest
from pydantic import ValidationError

from tasks.dedup.config import DedupConfig, HeldOutConfig, node, signatures_node
from tasks.store.json import JSON
from tasks.store.node import Node

DOWNLOAD = Node(stage="download", version=1, config={}, inputs={"file": "0" * 64})
FILTERING = Node(stage="filtering", version=1, config={}, inputs={"download": DOWNLOAD.fingerprint})


def nodes(held_out: HeldOutConfig | None = None, config: JSON | None = None) -> tuple[str, str]:
    settings = DedupConfig.model_validate(config or {})
    signed = signatures_node(settings, DOWNLOAD, FILTERING)
    return signed.fingerprint, node(settings, held_out or HeldOutConfig(), signed, None).fingerprint


def test_bands_that_need_more_permutations_than_there_are_are_refused_with_what_fits() -> None:
    with pytest.raises(
        ValidationError, match="num_bands=26 x rows_per_band=5 needs 130 permutations, num_perm=128"
    ):
        DedupConfig(num_bands=26)
    with pytest.raises(ValidationError, match="try num_bands=16"):
        DedupConfig(rows_per_band=8)
    with pytest.raises(ValidationError, match="try rows_per_band=128 or less"):
        DedupConfig(num_bands=1, rows_per_band=129)


@pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
def test_threshold_that_no_pair_or_any_pair_reaches_is_refused(threshold: float) -> None:
    with pytest.raises(ValidationError, match="threshold"):
        DedupConfig(threshold=threshold)


@pytest.mark.parametrize("field", ["threshold", "num_bands", "rows_per_band"])
def test_matching_changes_the_verdicts_and_not_the_signatures(field: str) -> None:
    changed = nodes(config={field: 0.8 if field == "threshold" else 4})
    assert changed[0] == nodes()[0]
    assert changed[1] != nodes()[1]


@pytest.mark.parametrize("field", ["num_perm", "ngram"])
def test_what_shapes_a_signature_changes_both(field: str) -> None:
    changed = nodes(config={field: 130 if field == "num_perm" else 4})
    assert changed[0] != nodes()[0]
    assert changed[1] != nodes()[1]


def test_held_out_fraction_changes_the_verdicts_and_max_documents_nothing() -> None:
    assert nodes(HeldOutConfig(max_documents=7)) == nodes()
    assert nodes(HeldOutConfig(fraction=0.1))[0] == nodes()[0]
    assert nodes(HeldOutConfig(fraction=0.1))[1] != nodes()[1]


def test_verdicts_stand_on_the_verdicts_before() -> None:
    signed = signatures_node(DedupConfig(), DOWNLOAD, FILTERING)
    first = node(DedupConfig(), HeldOutConfig(), signed, None)
    second = node(DedupConfig(), HeldOutConfig(), signed, first)
    assert first.inputs == {"signatures": signed.fingerprint}
    assert second.inputs == {"signatures": signed.fingerprint, "predecessor": first.fingerprint}
    assert second.reads == {"signatures": signed.path, "predecessor": first.path}
