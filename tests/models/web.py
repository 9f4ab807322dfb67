"""A small real web server on the loopback interface, for tests of fetching: ranges, breaks, silence."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.answer(self)

    def do_HEAD(self) -> None:
        self.server.answer(self)

    def log_message(self, *args: object) -> None:
        """Say nothing: the test reads `requests`."""


class Server(ThreadingHTTPServer):
    """Serves `files` (path → bytes); misbehaves as its attributes say."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.headers: dict[str, str] = {}  # sent with every file
        self.requests: list[BaseHTTPRequestHandler] = []
        self.bytes_sent = 0
        self.ranges = True
        self.announce = True
        self.silent = False
        self.delay_s = 0.0
        self.break_after: int | None = None
        self.stall_after: int | None = None
        self.stalled, self._closing = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what several tests are about."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.requests.append(request)
        if self.silent:
            self._closing.wait(30)
            return
        time.sleep(self.delay_s)
        content = self.files.get(request.path.lstrip("/"))
        if content is None:
            request.send_error(404)
            return
        start = self._start(request, content)
        if start is None:
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if self.announce:
            request.send_header("Content-Length", str(len(content) - start))
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            self._send(request, content[start:])

    def _start(self, request: BaseHTTPRequestHandler, content: bytes) -> int | None:
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and self.ranges else 0
        return start if start < len(content) else None

    def _send(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.stall_after is not None:
            request.wfile.write(body[: self.stall_after])
            request.wfile.flush()
            self.stalled.set()
            self._closing.wait(30)
            return
        body = body if self.break_after is None else body[: self.break_after]
        with self._lock:
            self.bytes_sent += len(body)
        request.wfile.write(body)
