"""One torch thread: on a busy machine two wait for each other longer than small tensors take.

A fixture for a conftest.py, or a file of tests, to import. The count is the process's: it lasts until the last test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Set torch's number of threads, and put it back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
