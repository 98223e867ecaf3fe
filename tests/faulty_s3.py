"""An HTTP proxy that stands before an S3 server and breaks what a test tells it to break.

    with faulty_s3(server.endpoint) as proxy:
        proxy.next("PUT", answer(503, "SlowDown"), answer(503, "SlowDown"))   # the next two PUTs
        proxy.always("GET", hang)                                            # every GET from now on
        storage = S3Storage(bucket, endpoint_url=proxy.endpoint)

A fault is a function of the exchange: it may answer by itself, or `Exchange.forward` the request and spoil
the request, the answer or the connection. Requests are signed for the proxy's own address and passed on with
it, so a server that checks signatures accepts them.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "expect", "keep-alive"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client. ``sent`` is how many bytes of ``body`` arrive before the line is cut."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    sent: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request on its way, and what can be done with it."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    backend: str
    closing: threading.Event

    def forward(self) -> Answer:
        """The real server's answer."""
        connection = http.client.HTTPConnection(self.backend, timeout=30)
        try:
            connection.putrequest(self.method, self.target, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders(self.body)
            got = connection.getresponse()
            kept = tuple((n, v) for n, v in got.getheaders() if n.lower() not in HOP_BY_HOP)
            length = got.getheader("Content-Length")
            body = got.read()
            if self.method == "HEAD" and length:
                kept += (("Content-Length", length),)
            return Answer(got.status, kept, body)
        finally:
            connection.close()


Fault = Callable[[Exchange], Answer | None]
"""None as an answer: the connection is cut without a word."""


def answer(status: int, code: str, message: str = "made up") -> Fault:
    """An error of the server; nothing reaches the real one."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"

    def fault(exchange: Exchange) -> Answer:
        body = b"" if exchange.method == "HEAD" else text.encode()
        return Answer(status, (("Content-Type", "application/xml"),), body)

    return fault


def cut(exchange: Exchange) -> None:
    """The connection is cut before the request reaches the server."""


def hang(exchange: Exchange) -> None:
    """Half-open: the request is taken, and nothing ever comes back."""
    exchange.closing.wait(60)


def cut_request(exchange: Exchange) -> None:
    """The connection is cut while the request's body is still being sent."""


def stall_request(exchange: Exchange) -> None:
    """Half-open the other way: after its beginning nobody takes the request's body, and nobody says so."""
    hang(exchange)


READS_NO_FURTHER = {cut_request: 1000, stall_request: 1000}
"""Bytes of the body that are read before these faults strike."""


def lose_answer(exchange: Exchange) -> None:
    """The server does what it was asked; the client never hears of it."""
    exchange.forward()


def hang_after(exchange: Exchange) -> None:
    """As `lose_answer`, but the line stays open and silent."""
    exchange.forward()
    hang(exchange)


def fail_after(status: int, code: str) -> Fault:
    """The server does what it was asked and then says that it failed."""

    def fault(exchange: Exchange) -> Answer | None:
        exchange.forward()
        return answer(status, code)(exchange)

    return fault


def cut_body(sent: int) -> Fault:
    """The connection is cut when ``sent`` bytes of the answer's body have arrived."""

    def fault(exchange: Exchange) -> Answer:
        return replace(exchange.forward(), sent=sent)

    return fault


def corrupt_answer(exchange: Exchange) -> Answer:
    """One bit of the answer's body arrives wrong."""
    got = exchange.forward()
    return replace(got, body=_flipped(got.body))


def corrupt_request(exchange: Exchange) -> Answer:
    """One bit of the request's body arrives wrong."""
    return replace(exchange, body=_flipped(exchange.body)).forward()


def shorten(by: int) -> Fault:
    """The answer is ``by`` bytes shorter than its own Content-Range says, and properly ended."""

    def fault(exchange: Exchange) -> Answer:
        got = exchange.forward()
        return replace(got, body=got.body[:-by])

    return fault


def without_ranges(exchange: Exchange) -> Answer:
    """A server that does not know ranged reads."""
    headers = {name: value for name, value in exchange.headers.items() if name.lower() != "range"}
    return replace(exchange, headers=headers).forward()


def at_time(date: str) -> Fault:
    """The server's clock shows ``date`` (RFC 9110, ``Sun, 06 Nov 1994 08:49:37 GMT``; empty: it has none)."""

    def fault(exchange: Exchange) -> Answer:
        got = exchange.forward()
        headers = tuple((name, value) for name, value in got.headers if name.lower() != "date")
        return replace(got, headers=(*headers, ("Date", date)) if date else headers)

    return fault


@dataclass(slots=True)
class FaultyS3:
    """The proxy: its address, what it is to break, and what it has seen."""

    endpoint: str
    seen: list[str] = field(default_factory=list)
    _next: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _always: dict[str, Fault] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str, *faults: Fault) -> None:
        """Break the next requests of ``method``, each in its own way.

        ``PUT partNumber=2`` are those with that in their target, ``ANY`` is every method.
        """
        with self._lock:
            self._next[method].extend(faults)

    def always(self, method: str, fault: Fault) -> None:
        """Break every request of ``method`` for which nothing else is next."""
        with self._lock:
            self._always[method] = fault

    def heal(self) -> None:
        """Break nothing any more."""
        with self._lock:
            self._next.clear()
            self._always.clear()

    def fault_for(self, method: str, target: str) -> Fault | None:
        """What is to happen to this request."""
        with self._lock:
            self.seen.append(f"{method} {target}")
            for faults in (self._next, self._always):
                for wanted, fault in faults.items():
                    name, _, part = wanted.partition(" ")
                    if name in (method, "ANY") and part in target and fault:
                        return fault.popleft() if isinstance(fault, deque) else fault
        return None


@contextlib.contextmanager
def faulty_s3(backend: str) -> Iterator[FaultyS3]:
    """Start a proxy before the server at ``backend`` (``http://host:port``); stop it at the end."""
    closing = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    proxy = FaultyS3(f"http://127.0.0.1:{server.server_address[1]}")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Small answers would otherwise wait for acknowledgements.
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            with contextlib.suppress(ConnectionError):
                super().handle_one_request()

        def _any(self) -> None:
            fault = proxy.fault_for(self.command, self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(min(length, READS_NO_FURTHER.get(fault, length)))
            exchange = Exchange(
                self.command, self.path, dict(self.headers.items()), body, urlsplit(backend).netloc, closing
            )
            got = fault(exchange) if fault else exchange.forward()
            if got is None:
                self._cut()
            else:
                self._send(got)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815

        def _send(self, got: Answer) -> None:
            self.send_response_only(got.status)
            for name, value in got.headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(got.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(got.body if got.sent is None else got.body[: got.sent])
            if got.sent is not None:
                self._cut()

        def _cut(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server.RequestHandlerClass = Handler
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
