"""The few requests that object_store.py and lease.py make: put, create, read, list, delete below one URL.

In: names relative to the URL, bytes. Out: bytes, or RunError when the place itself is at fault (no such bucket, no
permission, no credentials). Credentials and endpoint come from the environment as for every S3 client
(AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL…). Picklable: connections are made where they are used.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from data_jobs.runs.errors import RunError, TransientError

# Pauses after "409 ConditionalRequestConflict", with which S3 answers two conditional puts of one key at the same
# instant; its documentation asks for the request again.
CONFLICT_PAUSES_S = (0.05, 0.2, 0.8, 3.2)

# Commits fetched at a time: bounds memory, and keeps connections busy.
READ_BATCH = 1024


class Objects:
    """Named bytes below one URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def create(self, name: str, data: bytes) -> bool:
        """Put an object unless there is one (`If-None-Match: *`); False if there is. The store decides, atomically."""
        for pause_s in (*CONFLICT_PAUSES_S, None):
            try:
                with place_errors(self.url):
                    self._files.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                code = _code(error)
                if code == "PreconditionFailed":  # from stores that do not repeat the condition in their answer
                    return False
                if code != "ConditionalRequestConflict" or pause_s is None:
                    raise
                time.sleep(pause_s)
            else:
                return True
        raise AssertionError("unreachable: the last pause is None")

    def put(self, name: str, data: bytes) -> None:
        """Put an object, over an older one if there is one."""
        with place_errors(self.url):
            self._files.pipe_file(self._path(name), data)

    def exists(self, name: str) -> bool:
        """Whether there is an object of exactly this name."""
        with place_errors(self.url):
            return bool(self._files.isfile(self._path(name)))

    def read(self, name: str) -> bytes:
        """Its bytes; FileNotFoundError if there is none."""
        with place_errors(self.url, reading=True):
            return bytes(self._files.cat_file(self._path(name)))

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Bytes of many objects, fetched concurrently."""
        found: dict[str, bytes] = {}
        for start in range(0, len(names), READ_BATCH):
            batch = names[start : start + READ_BATCH]
            with place_errors(self.url, reading=True):
                # A list of one would be taken for a name and answered with bare bytes.
                data = self._files.cat([self._path(name) for name in batch], recursive=False, on_error="raise")
            found |= {name: data[self._path(name)] for name in batch}
        return found

    def names(self, folder: str) -> list[str]:
        """Names of all objects below a folder, sorted."""
        above = self._path(folder) if folder else self._root
        with place_errors(self.url, reading=True):
            paths = self._files.find(above)
        # s3fs asks twice when a listing is empty, and gives the folder itself if somebody has filled it in between.
        return sorted(path.removeprefix(f"{self._root}/") for path in paths if path.startswith(f"{above}/"))

    def remove(self, name: str) -> None:
        """Delete an object; nothing if there is none."""
        with place_errors(self.url):
            self._files.call_s3("delete_object", Bucket=self._root.split("/")[0], Key=self._path(name).split("/", 1)[1])

    @property
    def _files(self) -> Any:
        """The file system; fsspec keeps one per process and arguments, so asking again costs nothing."""
        import fsspec

        try:
            # Listings must show what others have published a moment ago.
            return fsspec.filesystem("s3", use_listings_cache=False)
        except ImportError as error:
            raise RunError(
                f"cannot reach {self.url}: results on S3 need the package s3fs (pip install s3fs)"
            ) from error

    @property
    def _root(self) -> str:
        return self.url.partition("://")[2].strip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextmanager
def place_errors(url: str, reading: bool = False) -> Iterator[None]:
    """Tell the place's faults (RunError) and the network's (TransientError) from answers, which pass."""
    try:
        yield
    except FileExistsError:
        raise
    except FileNotFoundError as error:
        if reading and _code(error) != "NoSuchBucket":
            raise
        raise RunError(f"cannot write to {url}: the bucket does not exist") from error
    except PermissionError as error:
        raise RunError(f"cannot use {url}: permission denied ({error})") from error
    except Exception as error:
        name = type(error).__name__
        if name in ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound"):
            raise RunError(f"cannot use {url}: {error}") from error
        if type(error).__module__.startswith(("botocore.", "aiohttp.")) or isinstance(error, TimeoutError):
            raise TransientError(f"{url} does not answer: {name}: {error}") from error
        raise


def _code(error: BaseException) -> str:
    """S3's own word for what went wrong, "" if it did not say."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
