"""The model card: what a saved model is and how to load it, for who finds its folder without the store."""

from tasks.store.json import JSON
from tasks.store.node import Node
from tasks.training.config import TrainingConfig
from tasks.training.schedule import Schedule

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- daptflow
- continued-pretraining
{base_model}---

# {base}, continued on {tokens:,} tokens

{base} was trained further on a domain{replay}, with AdamW at a learning rate of {rate:g}
({schedule} schedule, {steps} steps of {batch} sequences of {length} tokens). What it gained and forgot is in
the report of its run; whether the licenses of base and sources allow what you want to do with it is for you
to look up.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```

| | |
| --- | --- |
| fingerprint | `{fingerprint}` |
| base | `{digest}` |
| tokenizer | `{tokenizer}` |
| precision | {precision} |
| loss, first and last step | {first_loss:.4f}, {final_loss:.4f} |

Made by daptflow. `dapt lineage PATH` in its store leads back to the sources.
"""


def model_card(
    node: Node, config: TrainingConfig, schedule: Schedule, sequence_length: int, result: JSON
) -> str:
    """Markdown with the Hub's metadata.

    Args:
        node: the training.
        config: of it.
        schedule: of its learning rate.
        sequence_length: tokens.
        result: what the processes told: `curve`.
    """
    reads = node.reads["base"]
    reference = str(reads.get("reference") or "")
    share = node.config.get("replay_fraction", 0.0)
    on_hub = reference.count("/") == 1 and bool(reads.get("revision"))
    return _CARD.format(
        base_model=f"base_model: {reference}\n" if on_hub else "",
        base=reference if on_hub else "A base of its user's own",
        replay=f" and, {100 * share:g} % of the sequences, on general text" if share else "",
        tokens=schedule.end * config.global_batch_sequences * sequence_length,
        rate=config.learning_rate,
        schedule=config.schedule,
        steps=schedule.end,
        batch=config.global_batch_sequences,
        length=sequence_length,
        fingerprint=node.fingerprint,
        digest=node.inputs["base"],
        tokenizer=node.inputs["tokenizer"],
        precision=config.precision,
        first_loss=result["curve"][0][2],
        final_loss=result["curve"][-1][2],
    )
