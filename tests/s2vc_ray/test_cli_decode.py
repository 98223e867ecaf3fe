"""``s2vc decompress``, ``export`` and ``frame``: what they print, to whom, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import pytest
from PIL import Image

from s2vc_ray import cli, decompress, export
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from tests import media
from tests.fakes import load_fake

Call = Callable[..., int]
PROGRAM = """
import sys
from functools import partial
from s2vc_ray import cli, decompress, export
from tests.fakes import load_fake
for module, name in ((decompress, "decompress"), (export, "export")):
    setattr(module, name, partial(getattr(module, name), load_codec=load_fake))
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    clip = media.make_clip(folder / "a.mp4", frames=50, audio="aac")
    config = JobConfig(
        model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
    )
    assert compress([str(clip)], str(folder / "out"), config, load_codec=load_fake).clean
    return folder / "out" / "a.mp4.s2vc"


@pytest.fixture
def s2vc(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command with the fake codec; returns its exit code."""
    for module, name in ((decompress, "decompress"), (export, "export"), (export, "stills")):
        monkeypatch.setattr(module, name, partial(getattr(module, name), load_codec=load_fake))

    def call(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, arguments), "--model", "fake"])
        return int(ended.value.code or 0)

    return call


def test_a_stretch(s2vc: Call, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.mp4"
    assert s2vc("decompress", archive, out, "--start", "0:00.8", "--duration", ".4") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "decoding 10 frames of 2 GOPs" in captured.err
    assert "a.mp4: 10 frames from 2 GOPs" in captured.err
    assert "cut between packets" in captured.err
    assert len(media.all_frames(out)[1]) == 10
    assert (
        s2vc("decompress", archive, out, "--start", "#48", "--overwrite", "--no-passthrough", "--json") == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["notes"]) == (2, [])


def test_export(s2vc: Call, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc("export", archive, tmp_path / "a.mov", "--codec", "prores", "--preset", "lt", "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 50
    assert s2vc("export", archive, tmp_path / "shots", "--codec", "frames", "--duration", "0.1") == 0
    assert len(list((tmp_path / "shots").glob("*.png"))) == 3
    assert "timestamps.txt" in capsys.readouterr().err


def test_frames(s2vc: Call, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc("frame", archive, "--at", "0:01.05", tmp_path / "a.png") == 0
    assert "frame 26 at 0:00:01.040, 64x48" in capsys.readouterr().err
    assert s2vc("frame", archive, "--at", "0", "--at", "#7", tmp_path / "a_%02d.jpg", "--json") == 0
    written = json.loads(capsys.readouterr().out)
    assert [(one["frame"], one["seconds"]) for one in written] == [(0, 0.0), (7, 0.28)]
    with Image.open(tmp_path / "a_07.jpg") as image:
        assert image.size == (64, 48)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["decompress", "a.mp4", "--start", "soon"], 2, "1:02:03.5"),
        (["decompress", "a.mp4", "--start", "1:00"], 2, "it lasts 0:00:02.000"),
        (["decompress", "a.mp4", "--duration", "#5"], 2, "is no time"),
        (["decompress", "none/a.mp4"], 2, "make it first"),
        (["export", "a.mp4", "--codec", "ffv1"], 2, ".mkv"),
        (["export", "-", "--json"], 2, "standard output"),
        (["frame", "a.bmp", "--at", "0"], 2, ".png"),
        (["frame", "none/a.png", "--at", "0"], 4, "No such file"),
    ],
)
def test_bad_usage(
    s2vc: Call,
    archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    command, out, *options = arguments
    target = out if out == "-" else tmp_path / out
    assert s2vc(command, archive, target, *options) == code
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def piped(archive: Path, *options: str, take: int | None = None) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and standard error; with ``take``, the reader leaves after so many bytes."""
    command = [sys.executable, "-c", PROGRAM, "export", str(archive), "-", "--model", "fake", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=os.getcwd()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        data = process.stdout.read() if take is None else process.stdout.read(take)
        process.stdout.close()
        said = process.stderr.read()
    return process.returncode, data, said


@pytest.mark.parametrize(("codec", "streams"), [([], ["video"]), (["--codec", "h264"], ["video", "audio"])])
def test_standard_output_can_be_played(
    archive: Path, tmp_path: Path, codec: list[str], streams: list[str]
) -> None:
    code, data, said = piped(archive, *codec)
    assert code == 0, said
    (tmp_path / "a").write_bytes(data)
    with av.open(str(tmp_path / "a")) as container:
        assert container.format.name == ("matroska,webm" if codec else "yuv4mpegpipe")
        assert [stream.type for stream in container.streams] == streams
        assert len(list(container.decode(video=0))) == 50


@pytest.mark.parametrize("codec", [[], ["--codec", "ffv1"]])
def test_a_player_that_was_closed_is_no_error(archive: Path, codec: list[str]) -> None:
    code, _, said = piped(archive, *codec, take=100)
    assert code == 0
    assert said.decode().startswith("decoding 50 frames")
    # What fits the pipe may all be written before it is closed; then that is said too.
    assert [line for line in said.decode().splitlines()[1:] if line != "-: 50 frames from 7 GOPs"] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("codec", [[], ["--codec", "h264"]])
def test_a_full_disk_behind_standard_output_exits_4(archive: Path, codec: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, "export", str(archive), "-", "--model", "fake", *codec]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert "cannot write to standard output: No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["decompress", "export", "frame"])
def test_help_has_examples(s2vc: Call, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"\n  s2vc {command} " in text
    assert "--json" in text
