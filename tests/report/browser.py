"""A headless Chromium by the WebDriver protocol: themes, widths, print and pictures of a page."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
_OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]

Theme = Literal["light", "dark"]


class Browser:
    """One window."""

    def __init__(self, driver: str, session: str) -> None:
        self._driver, self._session = driver, session

    def show(self, page: Path, *, width: int, theme: Theme = "light", media: str = "screen") -> None:
        """Load a file in a window so wide, as a phone where it is narrow."""
        narrow = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", **narrow)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.cdp("Emulation.setEmulatedMedia", media=media, features=features)
        self._ask("url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        """What a script on the page returns."""
        return self._ask("execute/sync", {"script": script, "args": []})

    def picture(self, file: Path, *, height: int | None = None) -> None:
        """The page from its top as a PNG, whole where no height is given."""
        width, whole = self.run("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height or whole, "scale": 1}
        shot = self.cdp("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """The page as a PDF, on the paper that it names itself."""
        made = self.cdp("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(made["data"])

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self._ask("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        return _post(f"{self._driver}/session/{self._session}/{path}", body)


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A Chromium for a while."""
    assert CHROMIUM is not None
    assert CHROMEDRIVER is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = f"http://127.0.0.1:{port}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([CHROMEDRIVER, f"--port={port}"], **quiet) as process:
        try:
            options = {"binary": CHROMIUM, "args": [*_OPTIONS, f"--user-data-dir={profile}"]}
            asked = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
            session = _post_when_up(f"{driver}/session", asked)["sessionId"]
            yield Browser(driver, session)
            urllib.request.urlopen(
                urllib.request.Request(f"{driver}/session/{session}", method="DELETE"), timeout=60
            ).close()
        finally:
            process.terminate()


def _post_when_up(address: str, body: dict[str, Any]) -> Any:
    for _ in range(600):
        try:
            return _post(address, body)
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise TimeoutError(f"no chromedriver at {address}")


def _post(address: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, data=json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as err:
        raise AssertionError(json.loads(err.read())["value"]["message"]) from None
    except urllib.error.URLError as err:
        raise err.reason if isinstance(err.reason, ConnectionRefusedError) else err from None
