"""Nothing secret is in what is told: values of the environment, credentials in URLs, bearer tokens."""

import io
import logging
import subprocess
import sys

import pytest

from tasks.settings import Settings
from tasks.store.errors import DaptError, StoreDamaged
from tasks.store.masking import credential_in, mask_logs, masked

SECRET = "hf_planted0123456789"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:planted-pass")
    monkeypatch.setenv("SHORT_KEY", "store")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-true")


def test_values_of_secret_variables_are_masked_and_others_left() -> None:
    told = f"401 for {SECRET}, admin:planted-pass; TOKENIZERS_PARALLELISM=false-or-true, the store"
    assert masked(told) == "401 for ***, ***; TOKENIZERS_PARALLELISM=false-or-true, the store"


def test_a_header_with_the_server_s_password_is_masked() -> None:
    assert masked("Authorization: Basic YWRtaW46cGxhbnRlZC1wYXNz") == "Authorization: Basic ***"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("s3://key:sec/ret@bucket/a", "s3://***@bucket/a"),
        ("redis://:planted@redis:6379/0", "redis://***@redis:6379/0"),
        ("https://someone@host/a", "https://***@host/a"),
        ("https://host/a?X-Amz-Signature=0a1b&v=2", "https://host/a?X-Amz-Signature=***&v=2"),
        ("{'authorization': 'Bearer abcdefgh1234'}", "{'authorization': 'Bearer ***'}"),
        ("hf://datasets/owner/name@abc/a.parquet", "hf://datasets/owner/name@abc/a.parquet"),
        (
            "abfs://container@account.dfs.core.windows.net/a",
            "abfs://container@account.dfs.core.windows.net/a",
        ),
        ("watch it at http://127.0.0.1:44843/api?a=b@c", "watch it at http://127.0.0.1:44843/api?a=b@c"),
        ("https://host/a?version=2&tokens=5", "https://host/a?version=2&tokens=5"),
    ],
)
def test_urls_and_headers_lose_their_credentials_and_nothing_else(text: str, told: str) -> None:
    assert masked(text) == told


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://key:secret@bucket/*.parquet", "a user name or password"),
        ("https://user:pw@host/data.jsonl", "a user name or password"),
        ("https://host/data.jsonl?token=abc", "token"),
        ("https://host/data.jsonl?X-Amz-Signature=abc", "X-Amz-Signature"),
        ("hf://datasets/owner/name@main/data.parquet", ""),
        ("http://127.0.0.1:9000/data.jsonl", ""),
        ("/data/a:b@c/?token=abc", ""),
    ],
)
def test_a_url_s_credential_is_named(url: str, found: str) -> None:
    assert credential_in(url) == found


def test_our_errors_hold_no_secret() -> None:
    assert str(DaptError(f"refused {SECRET}")) == "refused ***"
    assert SECRET not in str(StoreDamaged("a/b", f"it says {SECRET}"))


def test_log_records_are_masked_with_their_tracebacks() -> None:
    factory, hook, out = logging.getLogRecordFactory(), sys.excepthook, io.StringIO()
    logger, handlers = logging.getLogger("tests.masking"), [logging.StreamHandler(out) for _ in range(2)]
    logger.handlers[:] = handlers
    try:
        mask_logs()
        try:
            raise ValueError(f"sent {SECRET}")
        except ValueError:
            logger.exception("failed with %s", SECRET)
    finally:
        logging.setLogRecordFactory(factory)
        sys.excepthook = hook
    told = out.getvalue()
    assert told.count("failed with ***") == told.count("ValueError: sent ***") == 2
    assert SECRET not in told


@pytest.mark.slow
def test_a_process_dies_with_its_traceback_masked() -> None:
    code = f"from tasks.store.masking import mask_logs\nmask_logs()\nraise ValueError('sent {SECRET}')"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == "ValueError: sent ***"
    assert SECRET not in done.stderr


def test_a_store_s_url_with_a_credential_is_refused() -> None:
    with pytest.raises(ValueError, match="AWS_SECRET_ACCESS_KEY"):
        Settings(store="s3://key:secret@bucket/store")
