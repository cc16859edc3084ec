"""The local server's app: Prefect's, for programs of this machine and for its own pages in a browser.

A server on loopback without a password is reached by every page that a browser of this machine shows. Prefect
answers any origin, so such a page could read runs and change them; a CSRF token is no hindrance, since it may
fetch one; and one whose name was pointed at 127.0.0.1 (DNS rebinding) counts as the server's own. A browser
says in `Host` and `Origin` what it was made to ask, and pages cannot change that: what is not ours is refused
here. Programs (Prefect's clients, curl) send our address and no origin.
"""

from fastapi import FastAPI
from prefect.server.api.server import create_app as create_prefect
from prefect.settings import PREFECT_SERVER_API_PORT
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose


class OwnPages:
    """Lets through what is asked of this very address, and by no page of another.

    Args:
        app: what answers.
        port: where it is served, on loopback.
    """

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self.origins = {f"http://{host}" for host in self.hosts} | {None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan" or self._is_own(Headers(scope=scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(1008)(scope, receive, send)
        else:
            answer = PlainTextResponse("It answers its own pages and programs of its machine.\n", 403)
            await answer(scope, receive, send)

    def _is_own(self, headers: Headers) -> bool:
        return headers.get("host") in self.hosts and headers.get("origin") in self.origins


def create_app() -> FastAPI:
    """Prefect's app behind the guard; for uvicorn."""
    app = create_prefect()
    app.add_middleware(OwnPages, port=PREFECT_SERVER_API_PORT.value())
    return app
