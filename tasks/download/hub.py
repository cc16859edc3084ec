"""Files of a data set on the Hugging Face Hub, pinned to a commit.

`datasets` resolves subset and split to files, from the repository's card and patterns and without reading
data; the Hub's tree gives the sha256 of each. Files are read later by `tasks/download/remote.py`, and not by
iterating a streaming data set: leaving one early (what a budget does) aborts the interpreter
(apache/arrow#45214). Where the network fails, it is asked again (`tasks/download/transfer.py`). A commit's
list never changes, so it is remembered: a pinned data set is listed without network from then on.
"""

from pathlib import PurePosixPath
from typing import Any

import datasets
from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from tasks.download.addresses import told
from tasks.download.config import SourceConfig
from tasks.download.digests import DigestMemory
from tasks.download.transfer import persistent
from tasks.store.errors import SourceError


def list_dataset(config: SourceConfig, memory: DigestMemory) -> tuple[list[tuple[str, str, int]], str]:
    """The files of a subset's split, in the order `datasets` gives them, without repetition.

    Args:
        config: with `dataset`.
        memory: knows the lists of commits seen before.

    Returns:
        Address, digest and size of each file; and the commit.

    Raises:
        SourceError: there is no such data set, revision, subset or split; or the Hub is switched off.
        TransientError: the network failed.
    """
    assert config.dataset
    repo, subset, split = config.dataset, config.subset, config.split
    if _is_commit(config.revision):
        commit = config.revision
    else:
        _require_online(repo)
        commit = persistent(lambda: _commit(repo, config.revision))
    files = memory.fact(
        f"hub {constants.ENDPOINT} {repo}@{commit} {subset!r} {split!r}",
        lambda: persistent(lambda: _find(repo, subset, split, commit)),
    )
    return [(str(address), str(digest), int(size)) for address, digest, size in files], commit


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(digit in "0123456789abcdef" for digit in revision)


def _require_online(repo: str) -> None:
    if constants.is_offline_mode():
        raise SourceError(
            f"{repo}: HF_HUB_OFFLINE is set, and this listing is not remembered; unset it for the first run, "
            "pin revision to a commit listed before, or give local files"
        )


def _commit(repo: str, revision: str) -> str:
    address = f"hf://datasets/{repo}" + (f"@{revision}" if revision else "")
    try:
        with told(address):
            return str(HfApi().dataset_info(repo, revision=revision or None).sha)
    except SourceError as err:
        raise _explained(repo, revision, err) from err


def _explained(repo: str, revision: str, err: SourceError) -> SourceError:
    """The remedy for what the Hub refuses; other errors as they are."""
    cause = err.__cause__
    if isinstance(cause, GatedRepoError):
        return SourceError(
            f"data set {repo} is gated; accept its terms on {constants.ENDPOINT}/datasets/{repo}, "
            "and set HF_TOKEN"
        )
    if isinstance(cause, RevisionNotFoundError):
        return SourceError(
            f"data set {repo} has no revision {revision!r}; give one of its branches, tags or commits"
        )
    if isinstance(cause, RepositoryNotFoundError | DatasetNotFoundError):
        return SourceError(
            f"data set {repo}{f' at {revision!r}' if revision else ''} is not on {constants.ENDPOINT}, or is "
            "private; check its name and revision, and set HF_TOKEN for a private one"
        )
    return err


def _find(repo: str, subset: str, split: str, commit: str) -> list[list[Any]]:
    _require_online(repo)
    prefix = f"hf://datasets/{repo}@{commit}/"
    try:
        with told(prefix):
            splits = _data_files(repo, subset, commit)
            if split not in splits:
                raise SourceError(
                    f"data set {repo} has no split {split!r} in subset {subset or 'default'!r}; "
                    f"it has {', '.join(map(repr, splits)) or 'none'}"
                )
            addresses = list(dict.fromkeys(splits[split]))
            paths = [address.removeprefix(prefix) for address in addresses]
            known = _digests(repo, commit, paths)
    except SourceError as err:
        raise _explained(repo, commit, err) from err
    missing = [path for path in paths if path not in known]
    if missing:
        raise SourceError(
            f"data set {repo} at {commit} lists {missing[0]}, which is not one of its own files"
        )
    return [[address, *known[path]] for address, path in zip(addresses, paths, strict=True)]


def _data_files(repo: str, subset: str, commit: str) -> dict[str, list[str]]:
    """Addresses by split; no data is read."""
    try:
        builder = datasets.load_dataset_builder(repo, subset or None, revision=commit)
    except DataFilesNotFoundError as err:
        raise SourceError(f"data set {repo} holds no data files that can be read: {err}") from err
    except (ValueError, RuntimeError) as err:  # an unknown subset; a data set that is a script
        raise SourceError(f"data set {repo}, subset {subset or 'default'!r}: {err}") from err
    files = builder.config.data_files or {}
    return {str(split): [str(file) for file in listed] for split, listed in files.items()}


def _digests(repo: str, commit: str, paths: list[str]) -> dict[str, tuple[str, int]]:
    """Digest and size by path: the sha256 of a large file, git's name of a small one."""
    api = HfApi()
    found: dict[str, tuple[str, int]] = {}
    for folder in sorted({str(PurePosixPath(path).parent) for path in paths}):
        listed = api.list_repo_tree(
            repo, None if folder == "." else folder, revision=commit, repo_type="dataset"
        )
        for entry in listed:
            if isinstance(entry, RepoFile):
                digest = entry.lfs.sha256 if entry.lfs else f"blob:{entry.blob_id}"
                found[entry.path] = (digest, entry.size)
    return found
