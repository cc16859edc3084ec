import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled

from tasks.store import models
from tasks.store.errors import RecipeError, SourceError, TransientError
from tasks.store.models import file_digest, require_vocabulary, resolve_model


def make(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {
        "config.json": json.dumps({"vocab_size": 512}),
        "tokenizer.json": "{}",
        "model.safetensors": "w",
    }
    for name, text in (defaults | files).items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("reference", ["base", "./base", "../recipes/base"])
def test_a_folder_is_found_from_the_recipes_own(tmp_path: Path, reference: str) -> None:
    make(tmp_path / "recipes" / "base")
    model = resolve_model(reference, folder=tmp_path / "recipes", weights=True)
    assert model.folder.samefile(tmp_path / "recipes" / "base")
    assert (model.revision, model.has_weights, model.vocab_size) == ("", True, 512)
    assert model.files["model.safetensors"] == hashlib.sha256(b"w").hexdigest()


def test_digests_say_contents_not_places(tmp_path: Path) -> None:
    one, two = (make(tmp_path / name) for name in ("one", "two"))
    (two / "README.md").write_text("other words")
    a, b = (resolve_model(str(p), folder=tmp_path, weights=True) for p in (one, two))
    assert (a.tokenizer_digest, a.model_digest) == (b.tokenizer_digest, b.model_digest)


@pytest.mark.parametrize(
    ("name", "tokenizer_changes", "model_changes"),
    [
        ("tokenizer.json", True, False),
        ("added_tokens.json", True, False),
        ("model.safetensors", False, True),
        ("config.json", False, True),
        ("chat_template.jinja", False, False),
        ("pytorch_model.bin", False, False),  # where there are safetensors nobody reads it
    ],
)
def test_each_digest_covers_what_shapes_it(
    tmp_path: Path, name: str, tokenizer_changes: bool, model_changes: bool
) -> None:
    before = resolve_model("m", folder=make(tmp_path / "m").parent, weights=True)
    (tmp_path / "m" / name).write_text('{"other": 1}')
    after = resolve_model("m", folder=tmp_path, weights=True)
    assert (before.tokenizer_digest != after.tokenizer_digest) is tokenizer_changes
    assert (before.model_digest != after.model_digest) is model_changes


def test_a_config_without_weights_and_a_tokenizer_without_a_model(tmp_path: Path) -> None:
    folder = make(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    model = resolve_model("m", folder=tmp_path, weights=True)
    assert not model.has_weights
    assert model.model_digest
    (folder / "config.json").unlink()
    model = resolve_model("m", folder=tmp_path, weights=False)
    assert (model.config, model.model_digest, model.vocab_size) == ({}, "", None)


def test_a_vocabulary_beyond_the_embedding_tells_both_numbers(tmp_path: Path) -> None:
    model = resolve_model("m", folder=make(tmp_path / "m").parent, weights=False)
    require_vocabulary(512, model)
    with pytest.raises(RecipeError, match="2048 ids, the embedding of m 512"):
        require_vocabulary(2048, model)


@pytest.mark.parametrize("reference", ["./gone", "../gone", "/gone/base", "a/b/c", "has space"])
def test_a_folder_that_is_not_there_is_named_without_asking_the_hub(tmp_path: Path, reference: str) -> None:
    with pytest.raises(SourceError, match="there is no folder") as caught:
        resolve_model(reference, folder=tmp_path, weights=False)
    assert reference in str(caught.value)


def test_a_file_is_no_model_and_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(SourceError, match="is a file"):
        resolve_model("model.gguf", folder=tmp_path, weights=False)
    make(tmp_path / "m", **{"config.json": "{"})
    with pytest.raises(SourceError, match=r"config\.json is no JSON"):
        resolve_model("m", folder=tmp_path, weights=False)


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("one")
    first = file_digest(file)
    file.write_text("three")
    assert file_digest(file) == hashlib.sha256(b"three").hexdigest() != first


class Hub:
    """A Hub of one repository: what `HfApi` and `snapshot_download` answer, from a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched, self.fault, self.cached = folder, set[str](), None, False
        self.fault: Exception | None
        self.refusal: Exception | None = None

    def model_info(self, repo: str, *, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        assert files_metadata
        if self.fault is not None:
            raise self.fault
        siblings = []
        for path in sorted(self.folder.iterdir()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            lfs = SimpleNamespace(sha256=digest) if path.suffix == ".safetensors" else None
            siblings.append(SimpleNamespace(rfilename=path.name, lfs=lfs))
        return SimpleNamespace(sha=revision or "c0ffee", siblings=siblings)

    def snapshot_download(self, repo: str, *, revision: str | None, **options: Any) -> str:
        if options.get("local_files_only") and not self.cached:
            raise LocalEntryNotFoundError("not in the cache")
        if self.refusal is not None:
            raise self.refusal
        self.fetched |= set(options.get("allow_patterns", ()))
        return str(self.folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(make(tmp_path / "hub"))
    monkeypatch.setattr(models, "HfApi", lambda: hub)
    monkeypatch.setattr(models, "snapshot_download", hub.snapshot_download)
    return hub


def test_the_hub_gives_weights_only_when_asked_and_their_digest_always(hub: Hub, tmp_path: Path) -> None:
    light = resolve_model("owner/name", folder=tmp_path, weights=False)
    assert hub.fetched == {"config.json", "tokenizer.json"}
    heavy = resolve_model("owner/name", folder=tmp_path, weights=True)
    assert "model.safetensors" in hub.fetched
    assert (light.model_digest, light.revision) == (heavy.model_digest, "c0ffee")
    local = resolve_model(str(hub.folder), folder=tmp_path, weights=True)
    assert (local.model_digest, local.tokenizer_digest) == (heavy.model_digest, heavy.tokenizer_digest)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(OfflineModeIsEnabled("offline"), SourceError), (httpx2.ConnectError("no route"), TransientError)],
)
def test_a_hub_that_cannot_be_asked_names_the_reference(
    hub: Hub, tmp_path: Path, fault: Exception, kind: type[SourceError]
) -> None:
    hub.fault = fault
    with pytest.raises(kind, match="'owner/name': there is no folder") as caught:
        resolve_model("owner/name", folder=tmp_path, weights=False)
    assert type(caught.value) is kind


def test_a_model_that_is_told_of_and_not_given_is_gated_and_not_tried_again(hub: Hub, tmp_path: Path) -> None:
    """The Hub answers for a gated model's facts; its files are what it refuses."""
    request = httpx2.Request("HEAD", "http://127.0.0.1:9/owner/name/resolve/main/config.json")
    hub.refusal = GatedRepoError("gated", response=httpx2.Response(403, request=request))
    with pytest.raises(SourceError, match="owner/name is gated: accept its terms on http") as caught:
        resolve_model("owner/name", folder=tmp_path, weights=False)
    assert type(caught.value) is SourceError


def test_a_refused_connection_is_the_networks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's real client: it moved from httpx to httpx2 once, and took its exceptions along."""
    monkeypatch.setattr(models, "HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(TransientError, match="nor does its local cache hold it"):
        resolve_model("owner/not-in-any-cache", folder=tmp_path, weights=False)


def test_offline_the_cache_serves_and_an_unknown_digest_is_not_made_up(hub: Hub, tmp_path: Path) -> None:
    hub.fault, hub.cached = OfflineModeIsEnabled("offline"), True
    assert resolve_model("owner/name", folder=tmp_path, weights=True).has_weights
    (hub.folder / "model.safetensors").unlink()
    assert resolve_model("owner/name", folder=tmp_path, weights=False).model_digest == ""
    with pytest.raises(SourceError, match="holds no weights"):
        resolve_model("owner/name", folder=tmp_path, weights=True)
