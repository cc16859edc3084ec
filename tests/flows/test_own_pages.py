"""The local server answers programs and its own pages; a page of another origin gets nothing."""

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.flows.commands import Api

pytestmark = pytest.mark.flow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
# What a hostile page tries: to read runs, to fetch a CSRF token, to change something, to listen to events.
HOSTILE = """<!doctype html><pre id=out></pre><script>
const told = word => document.getElementById("out").append(` ${word};`);
const api = "API";
async function attempt(name, work) {
  try { told(`${name}=${await work()}`); } catch (err) { told(`${name}=refused`); }
}
const post = {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}};
attempt("read", async () => (await fetch(`${api}/flow_runs/filter`, post)).status);
attempt("token", async () => (await fetch(`${api}/csrf-token?client=evil`)).status);
attempt("blind", async () => (await fetch(`${api}/variables/`, {method: "POST", mode: "no-cors",
  body: new Blob(['{"name": "evil", "value": "1"}'])})).type);
const socket = new WebSocket(api.replace("http", "ws") + "/events/out", "prefect");
socket.onopen = () => told("socket=open"); socket.onerror = () => told("socket=refused");
</script>"""


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["api/flows/filter", "api/csrf-token?client=a", "ui-settings", ""])
def test_a_request_of_another_name_or_origin_is_refused(api: Api, headers: dict[str, str], path: str) -> None:
    address = urlsplit(api.url)
    sent = {name: value.format(port=address.port) for name, value in headers.items()}
    verb = "POST" if path.endswith("filter") else "GET"
    answer = httpx.request(verb, f"http://{address.netloc}/{path}", headers=sent, timeout=60)
    assert (answer.status_code, answer.text) == (
        403,
        "It answers its own pages and programs of its machine.\n",
    )


def test_its_own_pages_under_either_name_and_programs_are_answered(api: Api) -> None:
    port = urlsplit(api.url).port
    for name in ("127.0.0.1", "localhost"):
        for sent in ({}, {"Origin": f"http://{name}:{port}"}):
            headers = {"Host": f"{name}:{port}", **sent}
            assert (
                httpx.post(f"{api.url}/flows/filter", headers=headers, json={}, timeout=60).status_code == 200
            )


@pytest.fixture
def elsewhere(api: Api, tmp_path: Path) -> Iterator[str]:
    """A page of another origin on this machine that tries the server."""
    (tmp_path / "index.html").write_text(HOSTILE.replace("API", api.url))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Silence."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def page(url: str, profile: Path) -> str:
    """What a browser shows of a page after a while."""
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", *QUIET, "--disable-sync", "--dump-dom"]
    options += [f"--user-data-dir={profile}", "--virtual-time-budget=8000"]
    done = subprocess.run([CHROMIUM, *options, url], capture_output=True, text=True, timeout=90, check=True)
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_a_page_of_another_origin_gets_nothing(api: Api, elsewhere: str, tmp_path: Path) -> None:
    told = dict(re.findall(r"(\w+)=(\w+);", page(elsewhere, tmp_path / "profile")))
    assert told == {"read": "refused", "token": "refused", "blind": "opaque", "socket": "refused"}
    assert api.ask("variables/filter") == [], "what was sent blindly was not taken"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_the_ui_works(api: Api, tmp_path: Path) -> None:
    api.ask("flows/", {"name": "seen-in-the-browser"})
    found = page(f"{api.url.removesuffix('/api')}/flows", tmp_path / "profile")
    assert "seen-in-the-browser" in found
