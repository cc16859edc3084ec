"""Token shards taken into a store under a name: the list that a recipe's `download.adopted` means.

It stands in `adopted/<name>/shards.json`: the packing nodes in order, what was found of the source, and the
tokenizer that made the ids. It only grows: what stands in it stays, so a larger corpus begins with a smaller.
"""

import msgspec

from flows.recipe import Recipe
from tasks.store.errors import RecipeError
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.tokenization.config import TokenizerRef


class AdoptedShard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One packed shard."""

    node: Node
    sequences: int
    read_bytes: int
    """Of its source files, about; what making it again would read."""


class Adopted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything adopted under one name."""

    name: str
    path: str
    """As it was given last."""
    revision: str
    """The data set's commit; "" for other sources."""
    column: str
    layout: str
    sequence_length: int
    tokenizer: str
    """Hub id or folder, as it was given."""
    tokenizer_digest: str
    eos_id: int
    shards: list[AdoptedShard]


def folder_of(name: str) -> str:
    """Where a list stands, relative to the store's root."""
    return f"adopted/{name}"


def read_adopted(store: Store, name: str) -> Adopted | None:
    """The list of a name, None where there is none."""
    try:
        return msgspec.json.decode(store.read(f"{folder_of(name)}/shards.json"), type=Adopted)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError as err:
        place = store.address(f"{folder_of(name)}/shards.json")
        raise RecipeError(f"{place} cannot be read: {err}; remove it and adopt again") from err


def write_adopted(store: Store, adopted: Adopted) -> None:
    """Write a list down."""
    text = msgspec.json.format(msgspec.json.encode(adopted), indent=1)
    store.write(f"{folder_of(adopted.name)}/shards.json", text)


def adopted_for(store: Store, recipe: Recipe, tokenizer: TokenizerRef | None) -> Adopted:
    """What a recipe adopts, checked to fit it.

    Raises:
        RecipeError: nothing was adopted under this name, or with another tokenizer or sequence length.
    """
    name = recipe.download.adopted
    adopted = read_adopted(store, name)
    if adopted is None:
        known = ", ".join(store.names("adopted")) or "none"
        raise RecipeError(
            f"download.adopted: nothing was adopted as {name!r} into {store.root} (there is: {known}); "
            f"run `dapt adopt PATH --tokenizer TOKENIZER --name {name}` first"
        )
    if adopted.sequence_length != recipe.packing.sequence_length:
        raise RecipeError(
            f"packing.sequence_length is {recipe.packing.sequence_length}, {name!r} was adopted in rows of "
            f"{adopted.sequence_length}; set it to that, or adopt again under another name"
        )
    has = (tokenizer.digest, tokenizer.eos_id) if tokenizer else None
    if has != (adopted.tokenizer_digest, adopted.eos_id):
        found = f"digest {has[0][:12]}, EOS {has[1]}" if has else "one trained here"
        raise RecipeError(
            f"the recipe's tokenizer ({found}) is not the one that {name!r} was adopted with "
            f"({adopted.tokenizer}: digest {adopted.tokenizer_digest[:12]}, EOS {adopted.eos_id}); name that "
            "in tokenization.tokenizer, and a base model that knows its ids"
        )
    return adopted
