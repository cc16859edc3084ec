"""`dapt doctor` on the Hub: does it answer, does the token hold, can what a recipe names be read.

One HEAD request a repository, through huggingface_hub and so with its token, proxies and mirror. The Hub
tells about a gated repository what it does not give, so a file is asked for, not the repository's facts.
Switched off (HF_HUB_OFFLINE), the local cache is looked at instead.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata

from flows.doctor_check import Check
from flows.doctor_machine import gigabytes
from flows.recipe import RECIPE_REFERENCE, Recipe
from tasks.evaluation.names import FOLDERS, definitions, require_benchmarks
from tasks.store.errors import DaptError, RecipeError
from tasks.store.models import resolve_model

ANSWER_S = 5.0
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_DATA = re.compile(r"^dataset_path:[ \t]*[\"']?([\w./-]+)", re.MULTILINE)
_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class Repository:
    """Something on the Hub, and who asks for it."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str
    asked_by: str

    @property
    def page(self) -> str:
        """Where a person accepts its terms."""
        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


def hub() -> Iterator[Check]:
    """Whether the Hub answers, and to whom."""
    proxies = [
        f"{name}={value}"
        for name in _PROXIES
        if (value := os.environ.get(name) or os.environ.get(name.lower()))
    ]
    through = f", through {', '.join(proxies)}" if proxies else ""
    if constants.is_offline_mode():
        told = "switched off by HF_HUB_OFFLINE: what a recipe needs must be in the cache or in folders"
        yield Check("hub", "ok", told)
        return
    token = get_token()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        answer = get_session().get(f"{constants.ENDPOINT}/api/whoami-v2", headers=headers, timeout=ANSWER_S)
    except httpx2.HTTPError as err:
        yield Check(
            "hub",
            "warning",
            f"{constants.ENDPOINT} does not answer within {ANSWER_S:g} s{through}: {_reason(err)}",
            "an answer, where a recipe names a Hub id",
            "name a mirror (HF_ENDPOINT) or a proxy (HTTPS_PROXY), or use folders and a filled cache with "
            "HF_HUB_OFFLINE=1",
        )
        return
    if answer.status_code >= 500:
        told = f"{constants.ENDPOINT} answers {answer.status_code}{through}"
        yield Check("hub", "warning", told, "an answer below 500", "try again later; status.huggingface.co")
        return
    yield Check("hub", "ok", f"{constants.ENDPOINT} answers{through}")
    yield _token(answer.status_code)


def _token(status: int) -> Check:
    if get_token() is None:
        return Check("hub token", "ok", "none: public repositories only")
    if status == 401:
        do = "set HF_TOKEN to one that holds (`hf auth login`), or unset it: it spoils public access too"
        return Check("hub token", "fails", "the Hub refuses the token at hand (401)", "one that holds", do)
    return Check(
        "hub token", "ok", "accepted" if status == 200 else f"given; this Hub answers {status} to it"
    )


def repositories(recipe: Recipe) -> list[Repository]:
    """What a recipe names on the Hub, each once: model, tokenizer, data sets."""
    found = []
    models = {"training.base_model": recipe.training.base_model}
    if recipe.training.selective is not None:
        models["training.selective.reference"] = recipe.training.selective.reference
    if not recipe.tokenization.train_vocab_size:
        models["tokenization.tokenizer"] = recipe.tokenization.tokenizer
    for field, name in models.items():
        if name and not name.startswith(RECIPE_REFERENCE) and not Path(name).is_absolute():
            found.append(Repository("model", name, "", field))
    for section, source in (("download", recipe.download), ("general", recipe.general)):
        if source is not None and source.dataset:
            found.append(Repository("dataset", source.dataset, source.revision, f"{section}.dataset"))
    return _once_each(found)


def benchmark_repositories(recipe: Recipe) -> list[Repository]:
    """The data of a recipe's benchmarks, each once."""
    return _once_each(
        Repository("dataset", data, "", f"the benchmark {name}")
        for name in recipe.evaluation.benchmarks
        for data in benchmark_data(name)
    )


def _once_each(found: Iterable[Repository]) -> list[Repository]:
    first: dict[tuple[str, str, str], Repository] = {}
    for one in found:
        first.setdefault((one.kind, one.name, one.revision), one)
    return list(first.values())


def benchmark_data(name: str) -> list[str]:
    """The data sets of a benchmark whose definition is found without reading all of lm-eval's."""
    if name not in FOLDERS:
        return []
    files = (file for file in (definitions() / FOLDERS[name]).iterdir() if "yaml" in file.name)
    return sorted({match[1] for file in files for match in _DATA.finditer(file.read_text())})


def benchmarks(recipe: Recipe) -> Iterator[Check]:
    """Whether lm-eval knows them; their data is asked for with the other repositories."""
    names = recipe.evaluation.benchmarks
    try:
        require_benchmarks(names)
    except RecipeError as err:
        yield Check("benchmarks", "fails", str(err), "names of lm-eval's tasks", "`lm-eval ls tasks`")
        return
    unseen = [name for name in names if name not in FOLDERS]
    told = ", ".join(names) or "none"
    rest = f" (not looked at: the data of {', '.join(unseen)})" if unseen else ""
    yield Check("benchmarks", "ok", f"{told}{rest}")


def access(one: Repository) -> Iterator[Check]:
    """Whether a repository can be read with the token at hand."""
    name = f"{one.kind} {one.name}"
    if constants.is_offline_mode():
        yield _in_cache(one, name)
        return
    file = "config.json" if one.kind == "model" else "README.md"
    url = hf_hub_url(one.name, file, repo_type=one.kind, revision=one.revision or None)
    try:
        get_hf_file_metadata(url, timeout=ANSWER_S)
    except EntryNotFoundError:
        pass  # the repository may be read, it has no such file
    except (HfHubHTTPError, HFValidationError) as err:
        yield _refused(one, name, err)
        return
    except httpx2.HTTPError as err:
        yield _unanswered(one, name, err)
        return
    yield Check(name, "ok", f"can be read ({one.asked_by})")
    if one.kind == "model":
        yield from _room_for_weights(one)


def _unanswered(one: Repository, name: str, err: Exception) -> Check:
    """Without an answer the cache may do; data sets and trainings that need more will then fail."""
    told, kept = f"the Hub does not answer ({_reason(err)})", _in_cache(one, name)
    expected = f"an answer within {ANSWER_S:g} s: {one.asked_by} asks for it"
    if kept.state == "ok":
        return Check(name, "warning", f"{told}; {kept.found}", expected, "see hub")
    return Check(name, "fails", f"{told}, and {kept.found}", expected, "see hub")


def _refused(one: Repository, name: str, err: HfHubHTTPError | HFValidationError) -> Check:
    expected = f"a {one.kind} that may be read: {one.asked_by} asks for it"
    token = "the token at hand" if get_token() else "no token"
    if isinstance(err, GatedRepoError):
        told = f"it is gated, and {token} opens it" if not get_token() else f"it is gated, not for {token}"
        do = f"accept its terms on {one.page}, then set HF_TOKEN to a token of that account"
        return Check(name, "fails", told, expected, do)
    if isinstance(err, DisabledRepoError):
        return Check(name, "fails", "the Hub has disabled it", expected, f"see {one.page}")
    if isinstance(err, RevisionNotFoundError):
        told = f"it has no revision {one.revision or 'main'!r}"
        return Check(name, "fails", told, expected, "name one of its branches, tags or commits")
    if isinstance(err, RepositoryNotFoundError | HFValidationError) or _hides(err):
        told = f"not found on {constants.ENDPOINT} with {token}"
        return Check(
            name, "fails", told, expected, "check its name; a private one needs its owner's HF_TOKEN"
        )
    status = err.response.status_code
    if status in (401, 403):
        do = "set HF_TOKEN to one that may read it (a fine-grained one needs that right), or unset it"
        return Check(name, "fails", f"{token} is refused ({status})", expected, do)
    return Check(name, "warning", f"the Hub answers {status}", expected, "try again later")


def _hides(err: HfHubHTTPError) -> bool:
    """The Hub says 401, not 404, of what a client may not know; huggingface_hub sees that on https only."""
    told = err.response.headers.get("X-Error-Message")
    return err.response.status_code == 401 and told != "Invalid credentials in Authorization header"


def _in_cache(one: Repository, name: str) -> Check:
    expected = f"it in the cache {constants.HF_HUB_CACHE}: {one.asked_by} asks for it"
    do = "fill the cache once with the network on (same HF_HOME), or name a folder"
    folder = Path(constants.HF_HUB_CACHE) / f"{one.kind}s--{one.name.replace('/', '--')}"
    if one.kind == "model" and folder.is_dir():
        try:
            found = try_to_load_from_cache(one.name, "config.json", revision=one.revision or None)
            whole = isinstance(found, str)
            snapshot = Path(found).parent if isinstance(found, str) else folder
            weights = whole and bool(
                resolve_model(str(snapshot), folder=Path.cwd(), weights=False).has_weights
            )
        except DaptError as err:
            return Check(name, "fails", str(err), expected, do)
        if weights:
            return Check(name, "ok", f"the cache holds it, with weights ({one.asked_by})")
        return Check(name, "warning", f"the cache {folder} holds no weights", expected, do)
    built = Path(constants.HF_HOME) / "datasets" / one.name.replace("/", "___")
    if folder.is_dir() or built.is_dir():
        return Check(name, "ok", f"the cache holds it, or parts of it ({one.asked_by})")
    return Check(name, "fails", "the cache does not hold it", expected, do)


def _room_for_weights(one: Repository) -> Iterator[Check]:
    """The weights that are to be fetched against the free disk of the cache."""
    try:
        info = HfApi().model_info(one.name, files_metadata=True, timeout=ANSWER_S)
    except (HfHubHTTPError, httpx2.HTTPError):
        return
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or [] if "/" not in file.rfilename}
    formats = [{name for name in sizes if name.endswith(ending)} for ending in _WEIGHTS]
    chosen = next((names for names in formats if names), set())
    missing = sum(
        sizes[name]
        for name in chosen
        if not isinstance(try_to_load_from_cache(one.name, name, revision=info.sha), str)
    )
    place = Path(constants.HF_HOME)
    free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free
    if missing > free:
        told = f"{gigabytes(missing)} to fetch, {gigabytes(free)} free at {place}"
        yield Check(f"weights of {one.name}", "fails", told, "room for them", "set HF_HOME to a larger disk")


def _reason(err: Exception) -> str:
    return str(err) or type(err).__name__
