"""models.py: whoever asks the actors how they are goes on asking, whatever becomes of an answer."""

import time

import pytest

from serve import models
from serve.errors import first_line


class Slow:
    """An actor whose first answer is a time-out, which says nothing."""

    def __init__(self, name, patience_s):
        self.asked = 0

    def call(self, method):
        self.asked += 1
        if self.asked == 1:
            raise TimeoutError
        return {"asked": self.asked}


def test_an_error_without_words_does_not_end_the_pulse(monkeypatch):
    monkeypatch.setattr(models, "Named", Slow)
    monkeypatch.setattr(models, "PULSE_S", 0.001)
    pulse, deadline_s = models.Pulse("slow"), time.monotonic() + 10
    while not pulse.told()["up"] and time.monotonic() < deadline_s:
        time.sleep(0.001)
    pulse.stop()
    assert pulse.told()["asked"] > 1


@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("no room\nat all"), "no room"), (ValueError("\n late"), "late"), (TimeoutError(), "TimeoutError")],
)
def test_an_error_is_one_line(error, said):
    assert first_line(error) == said
