"""What `s2vc view` serves, to whom, for how long; and what it makes of archives without a source or a manifest."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
import pytest

from s2vc_ray.access import Frame, open_archive
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError, ObjectMissing, SourceError
from s2vc_ray.export import shown
from s2vc_ray.source_frames import SourceFrames
from s2vc_ray.storage import open_storage
from s2vc_ray.view import ViewOptions, clip, open_view
from s2vc_ray.view.described import described
from s2vc_ray.view.server import ViewServer
from tests import media
from tests.audited import video
from tests.fakes import load_fake
from tests.reports import LATER, archives
from tests.seaweed import SeaweedServer

CLIP = bytes(range(256)) * 40
FAST = ViewOptions(model="fake", metrics=(), duration=Fraction(1, 5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("view")
    archives(made)
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ViewServer]:
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    (tmp_path / "secret").write_bytes(b"secret")
    with ViewServer(b"<html>", tmp_path / "clip.mp4") as made:
        yield made


def ask(
    server: ViewServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """An answer to a request whose path is sent as it stands."""
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(where.hostname), int(where.port or 0), timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_page_and_the_clip_are_served(server: ViewServer) -> None:
    path = urlsplit(server.url).path
    status, headers, body = ask(server, path)
    assert (status, headers["Content-Type"], body) == (200, "text/html; charset=utf-8", b"<html>")
    status, headers, body = ask(server, f"{path}clip.mp4")
    assert (status, headers["Content-Type"], body) == (200, "video/mp4", CLIP)
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    status, headers, body = ask(server, f"{path}clip.mp4", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(CLIP)), b"")


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=10000-", 10000, len(CLIP)),
        ("bytes=-5", len(CLIP) - 5, len(CLIP)),
        ("bytes=10000-999999", 10000, len(CLIP)),
    ],
)
def test_ranges_are_served(server: ViewServer, asked: str, first: int, end: int) -> None:
    status, headers, body = ask(server, f"{urlsplit(server.url).path}clip.mp4", Range=asked)
    assert (status, body) == (206, CLIP[first:end])
    assert headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(CLIP)}"


@pytest.mark.parametrize("asked", ["bytes=20000-", "bytes=9-8", "bytes=-0"])
def test_ranges_that_are_not_there_are_refused(server: ViewServer, asked: str) -> None:
    status, headers, body = ask(server, f"{urlsplit(server.url).path}clip.mp4", Range=asked)
    assert (status, headers["Content-Range"], body) == (416, f"bytes */{len(CLIP)}", b"")


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=", "bytes=-", "bytes=a-b"])
def test_other_ranges_are_passed_over(server: ViewServer, asked: str) -> None:
    status, _, body = ask(server, f"{urlsplit(server.url).path}clip.mp4", Range=asked)
    assert (status, body) == (200, CLIP)


def test_nothing_else_is_served_and_to_nobody_else(server: ViewServer) -> None:
    where = urlsplit(server.url)
    token = where.path.strip("/")
    assert len(token) >= 24
    for path in (
        "/",
        "/clip.mp4",
        f"/{token}",
        f"/{token[:-1]}/",
        f"/{token}x/",
        f"/{token}/secret",
        f"/{token}/../secret",
        f"/{token}/%2e%2e/secret",
        f"/{token}//clip.mp4",
        f"/{token}/clip.mp4/",
        f"/{token}/./clip.mp4",
        "/etc/passwd",
        f"/{token}/%e9",
        f"http://{where.netloc}/{token}/",
    ):
        status, _, body = ask(server, path)
        assert status == 404, path
        assert b"secret" not in body
    # A name that somebody else's DNS points here.
    for host in ("example.com", f"example.com:{where.port}", "", f"127.0.0.1:{(where.port or 0) + 1}"):
        assert ask(server, where.path, Host=host)[0] == 404
    assert ask(server, where.path, Host=f"localhost:{where.port}")[0] == 200
    assert ask(server, where.path, "POST")[0] == 501


def test_it_listens_on_this_machine_alone_and_ends_with_its_context(tmp_path: Path) -> None:
    with ViewServer(b"", tmp_path / "clip.mp4") as server:
        where = urlsplit(server.url)
        assert where.hostname == "127.0.0.1"
        with pytest.raises(ConfigError, match="--port"):
            ViewServer(b"", tmp_path / "clip.mp4", int(where.port or 0))
        other = socket.socket()
        other.settimeout(1)
        with pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", where.port))
    with pytest.raises(ConnectionRefusedError):
        ask(server, where.path)


def test_the_clip_is_gone_when_it_ends(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_view(str(folder / "out" / "a.mp4.s2vc"), FAST, load_codec=load_fake) as server:
        assert [path.name for path in tmp_path.rglob("*.mp4")] == ["clip.mp4"]
        assert ask(server, urlsplit(server.url).path)[0] == 200
    assert list(tmp_path.iterdir()) == []


def test_both_sides_are_in_the_clip(folder: Path, tmp_path: Path) -> None:
    with open_archive(str(folder / "out" / "a.mp4.s2vc"), model="fake", load_codec=load_fake) as archive:
        source = SourceFrames(str(folder / "in" / "a.mp4"), archive.header)
        made = clip.make_clip(archive, archive.stretch(Fraction(1, 5)), source, tmp_path / "clip.mp4", ())
        wanted = [frame.rgb for frame in archive.frames(Fraction(1, 5))]
        originals = [rgb for _, rgb in source.frames([frame.pts for frame in archive.frames(Fraction(1, 5))])]
    assert (made.frames[0], made.frames[-1], made.begin) == (5, 23, Fraction(1, 5))
    assert (made.source_top, made.decoded_top) == (0, 64)
    assert made.times == tuple(Fraction(at, 25) for at in range(19))
    assert made.gops == (0,) * 3 + (1,) * 8 + (2,) * 8
    with av.open(str(made.path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == 19
    for picture, above, below in zip(pictures, originals, wanted, strict=True):
        assert np.abs(picture[:64].astype(int) - above).mean() < 8
        assert np.abs(picture[64:].astype(int) - below).mean() < 8


def test_pictures_are_upright_and_of_square_samples_at_their_own_times(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pts = [0, 4, 8, 13, 16, 20, 28, 29]
    source = media.make_clip(
        tmp_path / "in" / "odd.mp4",
        frames=len(pts),
        size=(65, 49),
        pix_fmt="yuv444p",
        pts=pts,
        time_base=Fraction(1, 100),
        rotation=90,
        sample_aspect=Fraction(4, 3),
    )
    config = JobConfig(
        model="fake",
        executor="local",
        scene_cuts=False,
        metrics=MetricPolicy.parse("none"),
        allow_larger=True,
    )
    assert compress([str(source)], str(tmp_path / "out"), config, load_codec=load_fake).clean
    with open_archive(str(tmp_path / "out" / "odd.mp4.s2vc"), model="fake", load_codec=load_fake) as archive:
        original = SourceFrames(str(source), archive.header)
        made = clip.make_clip(archive, archive.stretch(), original, tmp_path / "clip.mp4", ())
        first = shown(next(archive.frames()), archive.header)
    assert first.shape == (87, 49, 3)
    assert (made.width, made.height, made.decoded_top) == (49, 87, 96)
    assert made.times == tuple(Fraction(one, 100) for one in pts)
    with av.open(str(made.path)) as container:
        frames = list(container.decode(video=0))
    assert [float(frame.time or 0) for frame in frames] == [float(one) for one in made.times]
    assert (frames[0].width, frames[0].height, frames[0].format.name) == (50, 192, "yuv420p")
    picture = frames[0].to_ndarray(format="rgb24")
    assert np.abs(picture[96 : 96 + 87, :49].astype(int) - first).mean() < 8


def test_frames_are_paired_by_their_times() -> None:
    def frame(pts: int) -> Frame:
        return Frame(pts, pts, Fraction(pts), np.full((2, 2, 3), pts, np.uint8))

    source = ((pts, np.full((2, 2, 3), pts, np.uint8)) for pts in (0, 1, 3, 4, 6))
    pairs = list(clip._paired(map(frame, (0, 2, 3, 5, 6)), source))
    assert [None if rgb is None else int(rgb[0, 0, 0]) for _, rgb in pairs] == [0, None, 3, None, 6]


def test_the_manifest_above_an_archive_is_found(folder: Path, tmp_path: Path) -> None:
    told = described(str(folder / "out" / "b.mp4.s2vc"))
    assert told.source_uri == str(folder / "in" / "b.mp4")
    assert [told.gops[gop]["psnr_mean"] for gop in range(3)] == [25, 26, 27]
    storage = open_storage(str(tmp_path / "out"))
    video(storage, "x.mp4", archive="deep/in/x.mp4.s2vc", created=LATER)
    assert described(str(tmp_path / "out" / "deep" / "in" / "x.mp4.s2vc")).source_uri == "/in/x.mp4"
    with pytest.raises(ObjectMissing, match=r"does not know deep/y\.s2vc"):
        described(str(tmp_path / "out" / "deep" / "y.s2vc"))
    with pytest.raises(ObjectMissing, match="no manifest"):
        described(str(tmp_path / "y.s2vc"))


def test_without_a_source_the_manifest_speaks(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copytree(folder / "out" / "manifest", out / "manifest")
    shutil.copy(folder / "out" / "a.mp4.s2vc", out)
    source = folder / "in" / "a.mp4"
    kept = source.rename(source.with_suffix(".away"))
    try:
        with open_view(str(out / "a.mp4.s2vc"), FAST, load_codec=load_fake) as server:
            page = ask(server, urlsplit(server.url).path)[2].decode()
    finally:
        kept.rename(source)
    assert "Without the source: no such source" in page
    assert "Figures are the manifest&#39;s" in page
    assert '"label":"PSNR"' in page
    assert '"values":[30.0,30.0,30.0,30.0,30.0]' in page


def test_a_source_that_is_not_the_archives_is_refused(folder: Path) -> None:
    archive = str(folder / "out" / "a.mp4.s2vc")
    options: dict[str, Any] = {"model": "fake", "metrics": ()}
    wrong = ViewOptions(source=str(folder / "in" / "b.mp4"), **options)
    with (
        pytest.raises(SourceError, match="is not the source"),
        open_view(archive, wrong, load_codec=load_fake),
    ):
        pass
    nowhere = ViewOptions(source=str(folder / "out"), **options)
    with (
        pytest.raises(ObjectMissing, match=r"no a\.mp4 under"),
        open_view(archive, nowhere, load_codec=load_fake),
    ):
        pass
    beside = ViewOptions(source=str(folder / "in"), duration=Fraction(1, 25), **options)
    with open_view(archive, beside, load_codec=load_fake) as server:
        assert b'id="source"' in ask(server, urlsplit(server.url).path)[2]


@pytest.mark.parametrize("ended", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_with_ctrl_c(folder: Path, tmp_path: Path, ended: signal.Signals) -> None:
    program = (
        "import functools, s2vc_ray.view as view; from tests.fakes import load_fake;"
        "view.open_view = functools.partial(view.open_view, load_codec=load_fake);"
        "view.ViewOptions = functools.partial(view.ViewOptions, metrics=()); from s2vc_ray.cli import main;"
        f"main(['view', {str(folder / 'out' / 'a.mp4.s2vc')!r}, '--model', 'fake', '--no-browser', '--duration', '0.1',"
        f"'--source', {str(folder / 'in')!r}])"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert command.stdout is not None
    assert command.stdout.readline().startswith("http://127.0.0.1:")
    assert len(list(tmp_path.glob("s2vc-view-*/clip.mp4"))) == 1
    command.send_signal(ended)
    assert command.wait(30) == 0
    assert list(tmp_path.glob("s2vc-view-*")) == []


@pytest.mark.s3
def test_archives_on_s3_are_viewed(
    folder: Path, seaweed_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{seaweed_server.new_bucket()}/small"
    storage = open_storage(uri)
    storage.put("deep/a.mp4.s2vc", (folder / "out" / "a.mp4.s2vc").read_bytes())
    video(storage, "a.mp4", archive="deep/a.mp4.s2vc", source_uri=str(folder / "in" / "a.mp4"), created=LATER)
    with open_view(f"{uri}/deep/a.mp4.s2vc", FAST, load_codec=load_fake) as server:
        page = ask(server, urlsplit(server.url).path)[2]
    assert b'id="source"' in page
    assert b"Without the source" not in page
