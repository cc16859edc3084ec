"""What is told of replay: how many general sequences training sees, and how often the same ones."""

import math

from flows.chain import REPLAY, Walk
from flows.milestones import replay_nodes
from flows.recipe import LEAST_REPLAY
from flows.resolve import Resolved
from tasks.store.json import JSON
from tasks.store.tokens import format_tokens
from tasks.training.replay import Replay


def replay_told(resolved: Resolved, walks: dict[str, Walk]) -> list[JSON]:
    """Of each milestone what its training replays; nothing where the recipe replays none.

    Returns:
        `fraction` (of all sequences), `sequences` (general ones seen), `rows` (different ones among them) and
        `repeats` (how often a row is seen at most); the last two are estimates, marked `estimated`, until the
        general rows are packed.
    """
    chain, walked = resolved.chains.get(REPLAY), walks.get(REPLAY)
    if chain is None or walked is None:
        return []
    recipe, whole = resolved.recipe, len(walked.amounts)
    known = replay_nodes(resolved, walks)
    text = sum(shard.text_bytes for shard in chain.shards[whole:])
    expected = walked.added + int(chain.rate(whole, walked.added) * text)
    told: list[JSON] = []
    for number, sequences in enumerate(recipe.replayed):
        estimated = number >= len(known)
        rows = min(sequences, expected) if estimated else known[number].config["sequences"]
        repeats = Replay(recipe.replay_fraction, rows).passes(sequences)
        told.append(
            {
                "budget": recipe.budget.milestones[number],
                "fraction": recipe.replay_fraction,
                "sequences": sequences,
                "rows": rows,
                "repeats": repeats,
                "estimated": estimated,
            }
        )
    return told


def replay_in_words(told: JSON) -> str:
    """One milestone's, for people."""
    about = "about " if told["estimated"] else ""
    again = f", each seen up to {told['repeats']} times" if told["repeats"] > 1 else ""
    return (
        f"{format_tokens(told['budget'])} replays {told['sequences']:,} general sequences, "
        f"{100 * told['fraction']:g} % of all: {about}{told['rows']:,} different ones{again}"
    )


def too_little_told(resolved: Resolved, held: int) -> str:
    """What to do when the general sources hold too little for the largest milestone.

    Args:
        resolved: the recipe on its store.
        held: sequences that they hold.
    """
    recipe = resolved.recipe
    assert recipe.general is not None
    needed, most = recipe.replayed[-1], recipe.general.max_repeats
    domain = recipe.training.epochs * recipe.sequences[-1]
    fitting = math.floor(1000 * held * most / (domain + held * most)) / 1000
    lower = f" lower general.replay_fraction to {fitting:.3f}," if fitting >= LEAST_REPLAY else ""
    return (
        f"the general sources hold {held:,} sequences of {recipe.packing.sequence_length} after filtering, "
        f"dedup and without what is held out; at general.replay_fraction={recipe.replay_fraction} the "
        f"milestone {format_tokens(recipe.budget.milestones[-1])} replays {needed:,}, and "
        f"general.max_repeats={most} allows {held * most:,}; add general text,{lower} or raise "
        "max_repeats. What was made stands and is used by the next run"
    )
