"""tracking_client.py without a service: a refusal is one sentence, whoever gives it."""

import io
import urllib.error
import urllib.request
from email.message import Message

import pytest

from robot.errors import TrackingError
from robot.tracking_client import add_target


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"reason": "no room for another target"}', "no room for another target"),
        (b"<html>a proxy's page</html>", "HTTP Error 502: Bad Gateway"),
        (b"[]", "HTTP Error 502: Bad Gateway"),
        (b"{}", "HTTP Error 502: Bad Gateway"),
        (b"", "HTTP Error 502: Bad Gateway"),
    ],
)
def test_a_refused_upload_is_one_sentence(monkeypatch, body, said):
    def refused(*_, **__):
        raise urllib.error.HTTPError("http://there", 502, "Bad Gateway", Message(), io.BytesIO(body))

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    with pytest.raises(TrackingError, match=rf"http://there/v1/targets\?name=cup: {said}$"):
        add_target("http://there", "cup", b"mesh")
