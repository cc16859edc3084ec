"""What a recipe calls a model or a tokenizer: a folder in Hugging Face layout, or a Hub id; and its digests.

In: a reference. Out: a local folder, the pinned revision, a sha256 a file, one digest for what shapes token
ids and one for what a training starts from. Names and paths are in no digest: a model moved is the same
model. Weights are fetched only when asked for; their digests come from the Hub's tree (LFS sha256) before
that. Locally a file is hashed once a process, remembered by path, size, mtime and inode.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub as hub

from tasks.runtime.imports import Late
from tasks.store.errors import RecipeError, SourceError, TransientError
from tasks.store.fingerprint import combined_digest
from tasks.store.json import JSON

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import errors as hub_errors
else:  # a quarter of what a plan imports, for models that lie on the disk
    httpx2, hub_errors = Late("httpx2"), Late("huggingface_hub.errors")

TOKENIZER_FILES = frozenset(
    {
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
    }
)
"""What shapes token ids; `tokenizer_digest` is over these."""

_CONFIGS = frozenset({"config.json", "generation_config.json"})
_WEIGHTS = (
    re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"),
    re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json"),
)
"""The names `from_pretrained` reads, best first: where there are safetensors, pickles are not looked at."""

_SMALL = (".json", ".model", ".txt", ".jinja")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model or tokenizer on the local disk."""

    reference: str
    """As the recipe has it."""
    folder: Path
    """Where its files are."""
    revision: str
    """The Hub's commit sha; empty for a local folder."""
    files: dict[str, str]
    """sha256 by name; on the Hub also of weights that were not fetched."""
    config: JSON
    """config.json, empty where there is none."""
    has_weights: bool
    """Whether there are weights (on the Hub: also those not fetched)."""
    tokenizer_digest: str
    """Over `TOKENIZER_FILES`; empty where there are none."""
    model_digest: str
    """Over config.json, generation_config.json and the weights; empty where there is no config.json, and
    offline where the cache holds no weights (there may be some on the Hub)."""

    @property
    def vocab_size(self) -> int | None:
        """Rows of the model's embedding, None where config.json does not say."""
        for config in (self.config, self.config.get("text_config")):
            if isinstance(config, dict) and isinstance(config.get("vocab_size"), int):
                return int(config["vocab_size"])
        return None


def resolve_model(reference: str, *, folder: Path, revision: str = "", weights: bool) -> ModelFiles:
    """Find a model or tokenizer, and fetch it when it is on the Hub.

    Args:
        reference: a folder (relative to `folder` where that exists, or when it starts with ./ ../ / or ~),
            else a Hub id.
        folder: of the recipe.
        revision: branch, tag or commit on the Hub; empty: its main branch. Of no meaning to a local folder.
        weights: fetch the weights too.

    Raises:
        SourceError: there is no such folder, or no such repository, revision or access.
        TransientError: the network failed.
    """
    place = folder / Path(reference).expanduser()
    if place.is_dir():
        return _local(reference, place)
    if place.exists():
        raise SourceError(f"{place} is a file; expected a model's folder (config.json, tokenizer.json, ...)")
    if reference.startswith(("./", "../", "/", "~")) or not _HUB_ID.fullmatch(reference):
        raise SourceError(
            f"{reference!r}: there is no folder {place}; expected a folder in Hugging Face layout or a Hub "
            "id (owner/name)"
        )
    return _hub(reference, place, revision, weights=weights)


def require_vocabulary(tokenizer_vocab_size: int, model: ModelFiles) -> None:
    """Check that every id of a tokenizer has a row in the model's embedding.

    Raises:
        RecipeError: it has not; names both numbers.
    """
    rows = model.vocab_size
    if rows is not None and tokenizer_vocab_size > rows:
        raise RecipeError(
            f"the tokenizer has {tokenizer_vocab_size} ids, the embedding of {model.reference} {rows} "
            "(vocab_size in "
            "its config.json); name the model's own tokenizer in tokenization.tokenizer, or a model that fits"
        )


def _local(reference: str, place: Path) -> ModelFiles:
    names = [path.name for path in place.iterdir() if path.is_file()]
    wanted = {name for name in names if name in TOKENIZER_FILES | _CONFIGS} | _weights_of(names)
    return _described(reference, place, "", {name: file_digest(place / name) for name in sorted(wanted)})


def _hub(reference: str, place: Path, revision: str, *, weights: bool) -> ModelFiles:
    try:
        info = hub.HfApi().model_info(reference, revision=revision or None, files_metadata=True)
    except (hub_errors.OfflineModeIsEnabled, httpx2.TransportError) as err:
        return _cached(reference, place, revision, err, weights=weights)
    except hub_errors.GatedRepoError as err:
        raise _gated(reference) from err
    except hub_errors.RevisionNotFoundError as err:
        raise SourceError(f"{reference} has no revision {revision!r} on the Hub") from err
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as err:
        raise SourceError(
            f"{reference!r}: there is no folder {place}, and the Hub has no model of that name (a private "
            "one needs HF_TOKEN)"
        ) from err
    except hub_errors.HfHubHTTPError as err:
        raise TransientError(f"the Hub did not tell about {reference}: {err}") from err
    return _fetched(reference, info, weights=weights)


def _gated(reference: str) -> SourceError:
    page = f"{hub.constants.ENDPOINT}/{reference}"
    return SourceError(f"{reference} is gated: accept its terms on {page}, then set HF_TOKEN")


def _fetched(reference: str, info: "hub.ModelInfo", *, weights: bool) -> ModelFiles:
    sizes = {file.rfilename: file for file in info.siblings or [] if "/" not in file.rfilename}
    heavy = {name for name in _weights_of(sizes) if not name.endswith(".json")}
    small = {name for name in sizes if name.endswith(_SMALL)}
    fetch = sorted(small | heavy if weights else small)
    try:
        place = Path(hub.snapshot_download(reference, revision=info.sha, allow_patterns=fetch))
    except (
        hub_errors.GatedRepoError
    ) as err:  # the Hub tells everybody of a gated model, and gives its files to few
        raise _gated(reference) from err
    except (
        hub_errors.HfHubHTTPError,
        httpx2.TransportError,
        hub_errors.LocalEntryNotFoundError,
        hub_errors.OfflineModeIsEnabled,
    ) as err:
        raise TransientError(f"{reference} could not be fetched from the Hub: {err}") from err
    files: dict[str, str] = {}
    for name in sorted(small & (TOKENIZER_FILES | _CONFIGS | _weights_of(sizes)) | heavy):
        lfs = sizes[name].lfs
        files[name] = lfs.sha256 if lfs is not None and name not in fetch else file_digest(place / name)
        if lfs is not None and files[name] != lfs.sha256:
            raise SourceError(
                f"{place / name} is not what the Hub lists for {reference}; delete it and try again"
            )
    return _described(reference, place, str(info.sha), files)


def _cached(reference: str, place: Path, revision: str, why: Exception, *, weights: bool) -> ModelFiles:
    try:
        cache = Path(hub.snapshot_download(reference, revision=revision or None, local_files_only=True))
    except (hub_errors.LocalEntryNotFoundError, hub_errors.HFValidationError) as err:
        kind = SourceError if isinstance(why, hub_errors.OfflineModeIsEnabled) else TransientError
        raise kind(
            f"{reference!r}: there is no folder {place}, and the Hub cannot be asked ({type(why).__name__}: "
            f"{why}) nor "
            "does its local cache hold it; name a folder, or run once with the network on"
        ) from err
    model = _local(reference, cache)
    if not model.has_weights and weights:
        raise SourceError(
            f"the local cache of {reference} at {cache} holds no weights, and the Hub cannot be asked: {why}"
        )
    return _described(reference, cache, cache.name, model.files, complete=model.has_weights)


def _weights_of(names: Iterable[str]) -> set[str]:
    """The weight files among names, with their index; of one format only."""
    names = list(names)
    for pattern in _WEIGHTS:
        found = {name for name in names if pattern.fullmatch(name)}
        if any(not name.endswith(".json") for name in found):
            return found
    return set()


def _described(
    reference: str, place: Path, revision: str, files: dict[str, str], *, complete: bool = True
) -> ModelFiles:
    config: JSON = {}
    if "config.json" in files:
        config = read_json(place / "config.json")
    weights = _weights_of(files)
    whole = complete and "config.json" in files
    return ModelFiles(
        reference=reference,
        folder=place.absolute(),
        revision=revision,
        files=files,
        config=config,
        has_weights=bool(weights),
        tokenizer_digest=_digest_of(files, TOKENIZER_FILES),
        model_digest=_digest_of(files, _CONFIGS | weights) if whole else "",
    )


def _digest_of(files: dict[str, str], names: Iterable[str]) -> str:
    given = sorted(files.keys() & set(names))
    return combined_digest(f"{name} {files[name]}" for name in given) if given else ""


def read_json(file: Path) -> JSON:
    """A JSON object of a model's folder.

    Raises:
        SourceError: it is none; names the file.
    """
    try:
        value = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise SourceError(f"{file} is no JSON: {err}") from err
    if not isinstance(value, dict):
        raise SourceError(f"{file} holds a {type(value).__name__}, expected a JSON object")
    return value


def file_digest(file: Path) -> str:
    """The sha256 of a local file; of one that did not change it is made once a process."""
    stat = file.stat()
    return _digest_once(str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=4096)
def _digest_once(path: str, _size: int, _mtime_ns: int, _inode: int) -> str:
    with Path(path).open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
