"""A recipe for tests that only look at what one says."""

from typing import Any

from flows.recipe import Recipe


def recipe(**training: Any) -> Recipe:
    """One without general text; `training` is added to its section."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "budget": {"milestones": ["100K"]},
            "download": {"files": ["/data/*.jsonl"]},
            "packing": {"sequence_length": 64},
            "training": {"base_model": "/model", "global_batch_sequences": 4, **training},
        }
    )
