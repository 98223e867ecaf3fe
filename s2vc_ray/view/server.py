"""A page and one clip over HTTP, for browsers of this machine alone.

It listens on 127.0.0.1, and answers only to paths that begin with a token that nobody can guess and to requests for
that address by name: other pages of the browser can reach the port, but know neither. There is no path to a file in
it: what is served are two things with fixed names.
"""

from __future__ import annotations

import hmac
import re
import secrets
import shutil
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from s2vc_ray.errors import ConfigError

HOST = "127.0.0.1"
CLIP = "clip.mp4"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class ViewServer:
    """Serves until it is closed; a context manager.

    Attributes:
        url: what to open.
    """

    def __init__(self, page: bytes, clip: Path, port: int = 0) -> None:
        """Listen on ``port``, 0 being a free one.

        Raises:
            ConfigError: the port cannot be had.
        """
        token = secrets.token_urlsafe(18)
        try:
            self._server = _Server((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port {port} cannot be used ({error}): give another with --port") from error
        self._server.things = {f"/{token}/": page, f"/{token}/{CLIP}": clip}
        self._server.names = {f"{name}:{self._server.server_port}" for name in (HOST, "localhost")}
        self.url = f"http://{HOST}:{self._server.server_port}/{token}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="s2vc-view", daemon=True)

    def __enter__(self) -> ViewServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Until the process is interrupted."""
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Connections that a browser keeps open must not keep the command from ending.
    block_on_close = False
    things: dict[str, bytes | Path]
    names: set[str]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "s2vc"
    sys_version = ""
    timeout = 60
    server: _Server

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it, and the token would stand in it."""

    def _answer(self, *, body: bool) -> None:
        found = self._find()
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            if isinstance(found, Path):
                with found.open("rb") as stream:
                    self._send(stream, found.stat().st_size, "video/mp4", body=body)
            else:
                self._send(BytesIO(found), len(found), "text/html; charset=utf-8", body=body)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            # The browser has what it wants, as when somebody seeks.
            self.close_connection = True

    def _find(self) -> bytes | Path | None:
        if self.headers.get("Host", "") not in self.server.names:
            return None
        asked = self.path.partition("?")[0].encode("utf-8", "surrogateescape")
        return next(
            (
                thing
                for path, thing in self.server.things.items()
                if hmac.compare_digest(path.encode(), asked)
            ),
            None,
        )

    def _send(self, stream: BinaryIO, size: int, kind: str, *, body: bool) -> None:
        wanted = _wanted(self.headers.get("Range", ""), size)
        if wanted is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        whole = len(wanted) == size
        self.send_response(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT)
        if not whole:
            self.send_header("Content-Range", f"bytes {wanted.start}-{wanted.stop - 1}/{size}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(wanted)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        if body:
            stream.seek(wanted.start)
            shutil.copyfileobj(_Bounded(stream, len(wanted)), self.wfile, 1 << 18)


class _Bounded:
    """The next ``left`` bytes of a stream."""

    def __init__(self, stream: BinaryIO, left: int) -> None:
        self._stream = stream
        self._left = left

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _wanted(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for (RFC 9110, 14.2); all for none or one of another kind, None for none
    that there are."""
    found = _RANGE.fullmatch(header)
    if not found or not (found[1] or found[2]):
        return range(size)
    if not found[1]:
        last = int(found[2])
        return range(max(0, size - last), size) if last else None
    first = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    return range(first, end) if first < end else None
