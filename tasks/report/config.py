"""The report's node."""

from collections.abc import Mapping

from tasks.store.json import JSON
from tasks.store.node import Node

STAGE = "report"
VERSION = 2


def report_node(
    recipe_name: str, recipe_digest: str, inputs: Mapping[str, str], facts: JSON | str | None = None
) -> Node:
    """The node of a report.

    Args:
        recipe_name: stands in the report, so it is part of what the report is.
        recipe_digest: of the resolved recipe.
        inputs: fingerprints of what it tells of, by name (corpora, trainings, evaluations).
        facts: `ReportFacts` as plain JSON, or where that JSON lies in the store; no identity.
    """
    config = {"recipe": recipe_name, "digest": recipe_digest}
    reads = {} if facts is None else {"facts": facts}
    return Node(stage=STAGE, version=VERSION, config=config, inputs=dict(inputs), reads=reads)
