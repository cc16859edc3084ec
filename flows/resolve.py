"""A recipe meets a store: its sources listed, its models found, its nodes named. Nothing is computed here."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from flows.adopted import adopted_for
from flows.chain import (
    DOMAIN,
    GENERAL,
    REPLAY,
    Chain,
    adopted_chain,
    domain_chain,
    general_chain,
    replay_chain,
)
from flows.recipe import RECIPE_REFERENCE, Recipe, load_recipe
from flows.record import Record, read_record, read_records
from tasks.download.config import SourceConfig, SourceShard
from tasks.download.digests import DigestMemory
from tasks.download.source import Source, list_source
from tasks.settings import Settings
from tasks.store.errors import RecipeError
from tasks.store.manifest import stands
from tasks.store.models import ModelFiles, require_vocabulary, resolve_model
from tasks.store.paths import Store
from tasks.tokenization.config import TokenizerRef, tokenizer_of, trained_tokenizer_of


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe with everything that can be known of it before it runs."""

    recipe: Recipe
    store: Store
    settings: Settings
    sources: dict[str, Source]
    chains: dict[str, Chain]
    base: ModelFiles
    base_path: str | None
    """Where in the store the base stands as a node, when it is one (`recipe:...`)."""
    reference: tuple[ModelFiles, str | None] | None
    """The model that selects what is learned, and where it stands as a node; None where all is."""
    tokenizer: TokenizerRef | None
    """None: trained on the first shard."""
    records: list[Record]
    """Of earlier runs under the same name, the newest first."""

    @property
    def revisions(self) -> dict[str, str]:
        """Commits of the Hub sources, by corpus."""
        return {corpus: source.revision for corpus, source in self.sources.items() if source.revision}


_held: dict[str, Resolved] = {}


@contextlib.contextmanager
def held(resolved: Resolved) -> Iterator[Resolved]:
    """Have `resolve` answer with this for a while: a flow and those it calls see one listing."""
    _held[resolved.recipe.digest] = resolved
    try:
        yield resolved
    finally:
        _held.pop(resolved.recipe.digest, None)


def resolve(recipe: Recipe, settings: Settings, *, update: bool = False) -> Resolved:
    """Find what a recipe names.

    Args:
        recipe: what to build.
        settings: where.
        update: let a moving source revision move; else the one of the newest record is kept.

    Raises:
        DaptError: a source, tokenizer or model cannot be found, or they do not fit each other.
    """
    if recipe.digest in _held:
        return _held[recipe.digest]
    store = Store(settings.store)
    records = read_records(store, recipe.name)
    base, base_path = _model("training.base_model", recipe.training.base_model, store)
    tokenizer = _tokenizer(recipe, base, base_path)
    reference = _reference(recipe, store, tokenizer)
    digests = DigestMemory(store)
    sources, chains = {}, {}
    if recipe.download.adopted:
        sources[DOMAIN], chains[DOMAIN] = _adopted(recipe, store, tokenizer)
    else:
        sources[DOMAIN] = _list(DOMAIN, recipe.download, records, digests, update=update)
        chains[DOMAIN] = domain_chain(recipe, sources[DOMAIN].shards, tokenizer)
    if recipe.general is not None:
        sources[GENERAL] = _list(GENERAL, recipe.general, records, digests, update=update)
        chains[GENERAL] = general_chain(recipe, sources[GENERAL].shards)
        if recipe.replay_fraction:
            given = tokenizer or trained_tokenizer_of(chains[DOMAIN].shards[0].nodes["tokenizer"])
            chains[REPLAY] = replay_chain(recipe, chains[GENERAL], given)
    return Resolved(recipe, store, settings, sources, chains, base, base_path, reference, tokenizer, records)


def _adopted(recipe: Recipe, store: Store, tokenizer: TokenizerRef | None) -> tuple[Source, Chain]:
    """What a recipe adopts, as a source and a chain; its files need not be there any more."""
    adopted = adopted_for(store, recipe, tokenizer)
    assert tokenizer is not None, "adopted tokens have a given tokenizer"
    shards = [msgspec.convert(shard.node.reads["shard"], SourceShard) for shard in adopted.shards]
    files = {file.address for shard in shards for file in shard.files}
    note = f"{adopted.name} was adopted as tokens: the domain's bits per byte are not measured, without text"
    chain = adopted_chain(recipe, adopted, tokenizer)
    return Source(shards, adopted.revision, [note], len(files)), chain


def _list(
    corpus: str, config: SourceConfig, records: list[Record], digests: DigestMemory, *, update: bool
) -> Source:
    pinned = next((r.revisions[corpus] for r in records if _same_source(r, corpus, config)), "")
    if pinned and not config.revision and not update:
        config = config.model_copy(update={"revision": pinned})
    return list_source(config, folder=Path.cwd(), digests=digests)


def _same_source(record: Record, corpus: str, config: SourceConfig) -> bool:
    section = record.recipe.get("download" if corpus == DOMAIN else "general") or {}
    here = config.model_dump(mode="json")
    return corpus in record.revisions and all(
        section.get(k) == here[k] for k in ("dataset", "subset", "split")
    )


def _model(field: str, reference: str, store: Store) -> tuple[ModelFiles, str | None]:
    """A model's files, and where it is a node; the last model of another recipe must stand."""
    if not reference.startswith(RECIPE_REFERENCE):
        return resolve_model(reference, folder=Path.cwd(), weights=False), None
    other = reference.removeprefix(RECIPE_REFERENCE)
    wanted = load_recipe(other)
    record = read_record(store, wanted)
    trained = record.nodes.get("training", []) if record else []
    path = trained[-1] if len(trained) == len(wanted.budget.milestones) else None
    if path is None or stands(store, path) is None:
        raise RecipeError(
            f"{field}: the last model of {other} does not stand in {store.root}; run `dapt run {other}` first"
        )
    return resolve_model(store.address(path), folder=Path.cwd(), weights=False), path


def _reference(
    recipe: Recipe, store: Store, tokenizer: TokenizerRef | None
) -> tuple[ModelFiles, str | None] | None:
    """The model that selects what is learned, checked to know the tokens."""
    if recipe.training.selective is None:
        return None
    field = "training.selective.reference"
    found, path = _model(field, recipe.training.selective.reference, store)
    if not found.has_weights:
        raise RecipeError(f"{field}: {found.reference} has no weights; name a model that was trained")
    require_vocabulary(tokenizer.vocab_size if tokenizer else recipe.tokenization.train_vocab_size, found)
    return found, path


def _tokenizer(recipe: Recipe, base: ModelFiles, base_path: str | None) -> TokenizerRef | None:
    """The tokenizer, checked against the base's embedding before anything is spent."""
    if recipe.tokenization.train_vocab_size:
        require_vocabulary(recipe.tokenization.train_vocab_size, base)
        return None
    name = recipe.tokenization.tokenizer
    files = resolve_model(name, folder=Path.cwd(), weights=False) if name else base
    tokenizer = tokenizer_of(files)
    require_vocabulary(tokenizer.vocab_size, base)
    return tokenizer
