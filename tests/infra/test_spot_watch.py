"""The watcher hears each cloud's notice, and takes silence and errors for no notice."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "infra" / "container"


@pytest.fixture
def spot_watch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("spot_watch")


@contextmanager
def metadata_service(noticed: threading.Event, asked: list[str]) -> Iterator[str]:
    """EC2's and Compute Engine's, as far as spot notices go."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self.answer(200 if self.path == "/latest/api/token" and lifetime else 400, "a-token")

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/latest/meta-data/spot/instance-action":
                if self.headers.get("X-aws-ec2-metadata-token") != "a-token":
                    self.answer(401, "")
                else:
                    self.answer(200 if noticed.is_set() else 404, '{"action": "terminate"}')
            elif self.path == "/computeMetadata/v1/instance/preempted":
                known = self.headers.get("Metadata-Flavor") == "Google"
                self.answer(200 if known else 403, "TRUE" if noticed.is_set() else "FALSE")
            else:
                self.answer(404, "")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_a_notice_drains_the_node_and_nothing_else_does(
    spot_watch: ModuleType, monkeypatch: pytest.MonkeyPatch, cloud: str
) -> None:
    drained: list[tuple[int, str]] = []
    monkeypatch.setattr(spot_watch, "drain", lambda *arguments: drained.append(arguments) or 0)
    noticed, asked = threading.Event(), list[str]()
    with metadata_service(noticed, asked) as base:
        watcher = threading.Thread(
            target=spot_watch.main, args=([cloud, "--every", "0.01", "--metadata", base],)
        )
        watcher.start()
        while len(asked) < 5:
            watcher.join(0.01)
        assert watcher.is_alive()
        assert not drained
        noticed.set()
        watcher.join(20)
        assert not watcher.is_alive()
    assert drained == [(spot_watch.GRACE_SECONDS[cloud], f"spot notice from {cloud}")]


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_no_metadata_service_is_no_notice(spot_watch: ModuleType, cloud: str) -> None:
    with metadata_service(threading.Event(), []) as gone:
        pass
    assert spot_watch.NOTICES[cloud](gone) is False
