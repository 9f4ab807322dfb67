"""Both places for results, as a parameter: whatever one promises, the other must keep."""

import uuid

import pytest

from data_jobs.runs.places import below, open_store
from tests.faults.s3 import s3_server


@pytest.fixture(scope="session")
def s3_environment():
    with s3_server() as environment:
        yield environment


@pytest.fixture
def bucket(s3_environment, monkeypatch, tmp_path) -> str:
    """A fresh bucket's URL, with this process's S3 clients led to the local server."""
    import fsspec

    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture(params=["posix", "s3"])
def place(request, tmp_path):
    """Where results live."""
    return tmp_path / "out" if request.param == "posix" else below(request.getfixturevalue("bucket"), "some/prefix")


@pytest.fixture
def store(place):
    committer = open_store(place)
    committer.prepare()
    return committer
