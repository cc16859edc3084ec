"""A Prefect server that asks for a password: who has none is told, who has it goes on."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import prefect
import pytest
from prefect import settings

from flows.secrets import provide_secrets
from flows.server import require_server
from tasks.store.errors import DaptError

pytestmark = pytest.mark.flow

PASSWORD = "YWRtaW46cGxhbnRlZA=="
"""admin:planted, as a header carries it."""


class Guarded(http.server.BaseHTTPRequestHandler):
    """Health for everybody, the version for who has the password; what Prefect's server does."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        known = self.path == "/api/health" or self.headers.get("Authorization") == f"Basic {PASSWORD}"
        body = f'"{prefect.__version__}"'.encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Silence."""


@pytest.fixture
def url() -> Iterator[str]:
    Guarded.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@pytest.mark.parametrize("given", [None, "admin:guessed"])
def test_who_lacks_the_password_is_told_where_it_belongs(url: str, given: str | None, tmp_path: Path) -> None:
    here = {settings.PREFECT_API_URL: url, settings.PREFECT_HOME: tmp_path}
    with (
        settings.temporary_settings({**here, settings.PREFECT_API_AUTH_STRING: given}),
        pytest.raises(DaptError, match="refuses us; set PREFECT_API_AUTH_STRING to its user:password"),
    ):
        require_server()


def test_who_has_it_goes_on(url: str, tmp_path: Path) -> None:
    here = {settings.PREFECT_API_URL: url, settings.PREFECT_HOME: tmp_path}
    with settings.temporary_settings({**here, settings.PREFECT_API_AUTH_STRING: "admin:planted"}):
        assert require_server() == url.removesuffix("/api")


def test_outside_a_flow_no_server_is_asked_for_secrets(url: str) -> None:
    with settings.temporary_settings({settings.PREFECT_API_URL: url}):
        provide_secrets()
    assert Guarded.asked == []
