"""Who may talk to the service: an ASGI layer in front of every route and websocket.

In: the request's peer, headers and the operator's token. Out: the request goes through, or 401. Used by deployments.py.

Without a token only this machine is served, and only pages that came from this service: a page of another site that
runs in a browser here could otherwise reach the arm (cross-site websockets, DNS rebinding). With a token everybody,
on this machine too, must show it: `Authorization: Bearer TOKEN`, or for a browser's websocket, which cannot set
headers, the subprotocols `reafference` and `bearer.TOKEN`.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

SUBPROTOCOL = "reafference"
TOKEN_PREFIX = "bearer."
LOOPBACK_NAMES = ("localhost",)
# The page itself holds no data: it must load before a person can type the token into it.
OPEN_PATHS = ("/", "/healthz")
OPEN_PREFIX = "/viewer/"
NOT_LOCAL = "off this machine a bearer token is required, and the operator has set none: this peer is not served"
WRONG_TOKEN = "a bearer token is required and this is not it"
OTHER_SITE = "a page of another site may not talk to this service"


class Gate:
    """Wraps an ASGI app."""

    def __init__(self, app: Any, token: str | None, allowed_hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._token = token
        self._hosts = tuple(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Let through or refuse."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = self.objection(scope)
        if not reason:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Before the handshake is answered: the peer sees HTTP 403 and no socket is ever open.
            await receive()
            await send({"type": "websocket.close", "code": 4401, "reason": reason})
        else:
            await _refuse(send, reason)

    def objection(self, scope: dict[str, Any]) -> str:
        """Why this request may not pass; empty when it may."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if not self._same_site(headers):
            return OTHER_SITE
        path = scope["path"]
        if scope["type"] == "http" and (path in OPEN_PATHS or path.startswith(OPEN_PREFIX)):
            return ""
        if self._token:
            return "" if self._shown(scope, headers) else WRONG_TOKEN
        return "" if _is_loopback(scope.get("client")) and self._known_host(headers) else NOT_LOCAL

    def _shown(self, scope: dict[str, Any], headers: dict[str, str]) -> bool:
        shown = headers.get("authorization", "")
        given = [shown[len("Bearer ") :]] if shown.startswith("Bearer ") else []
        given += [p[len(TOKEN_PREFIX) :] for p in scope.get("subprotocols", ()) if p.startswith(TOKEN_PREFIX)]
        assert self._token is not None, "asked only with a token"
        return any(hmac.compare_digest(token.encode(), self._token.encode()) for token in given)

    def _same_site(self, headers: dict[str, str]) -> bool:
        """Browsers name the page's origin; programs do not."""
        origin = headers.get("origin")
        return origin is None or (urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != "")

    def _known_host(self, headers: dict[str, str]) -> bool:
        name = (urlsplit(f"//{headers.get('host', '')}").hostname or "").lower()
        return name in LOOPBACK_NAMES or name in self._hosts or _is_loopback((name, 0))


def _is_loopback(client: Any) -> bool:
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except (TypeError, ValueError, IndexError):
        return False


async def _refuse(send: Any, reason: str) -> None:
    body = json.dumps({"reason": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
