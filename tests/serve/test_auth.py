"""Who is let in: loopback without a token, a token everywhere else, and never a page of another site."""

import pytest

from serve.auth import NOT_LOCAL, OTHER_SITE, WRONG_TOKEN, Gate


def scope(path="/v1/status", client="127.0.0.1", host="127.0.0.1:8000", kind="http", protocols=(), **headers):
    sent = {"host": host, **headers}
    return {
        "type": kind,
        "path": path,
        "client": (client, 50000) if client else None,
        "headers": [(key.encode(), value.encode()) for key, value in sent.items()],
        "subprotocols": list(protocols),
    }


OPEN, CLOSED = Gate(None, None), Gate(None, "s3cret")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_this_machine_needs_no_token(host):
    assert OPEN.objection(scope(host=host)) == ""
    assert OPEN.objection(scope(client="::1", host=host)) == ""


@pytest.mark.parametrize("client", ["192.0.2.7", "::ffff:192.0.2.7", "", "unix"])
def test_other_machines_are_not_served_without_a_token(client):
    assert OPEN.objection(scope(client=client)) == NOT_LOCAL
    assert OPEN.objection(scope(client=client, kind="websocket", path="/v1/track")) == NOT_LOCAL


def test_a_name_that_points_here_is_not_this_machine():
    """DNS rebinding: the browser is local, the name is the attacker's."""
    assert OPEN.objection(scope(host="evil.example:8000")) == NOT_LOCAL
    assert OPEN.objection(scope(host="evil.example:8000", origin="http://evil.example:8000")) == NOT_LOCAL
    assert Gate(None, None, ["robot.lan"]).objection(scope(host="robot.lan:8000")) == ""


@pytest.mark.parametrize("gate", [OPEN, CLOSED])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "file://"])
def test_pages_of_other_sites_are_refused(gate, origin):
    for kind in ("http", "websocket"):
        assert gate.objection(scope(origin=origin, kind=kind, path="/v1/control/stream")) == OTHER_SITE


def test_our_own_page_may_ask():
    assert OPEN.objection(scope(origin="http://127.0.0.1:8000")) == ""


def test_with_a_token_everybody_shows_it():
    assert CLOSED.objection(scope()) == WRONG_TOKEN
    assert CLOSED.objection(scope(authorization="Bearer wrong")) == WRONG_TOKEN
    assert CLOSED.objection(scope(authorization="s3cret")) == WRONG_TOKEN
    assert CLOSED.objection(scope(client="192.0.2.7", authorization="Bearer s3cret")) == ""
    socket = {"kind": "websocket", "path": "/v1/track", "client": "192.0.2.7"}
    assert CLOSED.objection(scope(**socket)) == WRONG_TOKEN
    assert CLOSED.objection(scope(**socket, protocols=["reafference", "bearer.s3cret"])) == ""
    assert CLOSED.objection(scope(**socket, authorization="Bearer s3cret")) == ""


def test_the_page_loads_without_a_token_and_tells_nothing():
    assert CLOSED.objection(scope("/", "192.0.2.7")) == CLOSED.objection(scope("/viewer/main.js", "192.0.2.7")) == ""
    assert CLOSED.objection(scope("/v1/targets", "192.0.2.7")) == WRONG_TOKEN
    assert CLOSED.objection(scope("/docs", "192.0.2.7")) == WRONG_TOKEN
