"""Of an MP4 planning reads its tables, a few heads and the first picture, and learns what all packets would tell."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import boto3
import numpy as np
import pytest
from moto import mock_aws

from jobs.bench_length import repeat
from s2vc_ray import probe as probing
from s2vc_ray.errors import SourceError
from s2vc_ray.probe import probe
from s2vc_ray.s3_bucket import Bucket
from s2vc_ray.sources import open_media
from s2vc_ray.timeline import Timeline
from s2vc_ray.values import VideoInfo
from tests.matrix.times import edited
from tests.media import make_clip

LEAST = 50_000_000
SHARE = 0.03
"""Of a source that may be read: five buffers of FFmpeg, the tables once more, and the heads of 32 keyframes."""


class Counting(io.FileIO):
    """A file that counts what is read of it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than 50 MB of noise in H.264 with B-frames, and sound; ``moov`` lies at the end."""
    folder = tmp_path_factory.mktemp("large")
    noise = np.random.default_rng(0).integers(0, 256, (25, 240, 320, 3), np.uint8)
    options = {"preset": "ultrafast", "qp": "0"}
    piece = make_clip(
        folder / "piece.mp4", rgb=noise, frames=25, gop=12, b_frames=2, audio="aac", options=options
    )
    path = folder / "large.mp4"
    repeat(piece, path, LEAST * 11 // 10 // piece.stat().st_size)
    assert path.stat().st_size >= LEAST
    return path


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the tables had an answer, each time they were asked."""
    given: list[bool] = []
    ask: Callable[..., Timeline | None] = probing.table_timeline

    def asked(*arguments: object) -> Timeline | None:
        answer = ask(*arguments)
        given.append(answer is not None)
        return answer

    monkeypatch.setattr(probing, "table_timeline", asked)
    return given


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="films")
        yield "films"


def test_little_of_a_file_is_read(large: Path) -> None:
    with Counting(large) as file:
        info = probe(file)
        assert file.taken < SHARE * large.stat().st_size
    assert info == probe(large, tables=False)
    assert info == probe(large)


def test_little_of_an_object_is_read(large: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.client("s3", region_name="us-east-1").upload_file(str(large), bucket, "a.mp4")
    taken: list[int] = []
    get = Bucket.get

    def counted(*arguments: object, **options: object) -> bytes:
        data: bytes = get(*arguments, **options)  # type: ignore[arg-type]
        taken.append(len(data))
        return data

    monkeypatch.setattr(Bucket, "get", counted)
    with open_media(f"s3://{bucket}/a.mp4") as media:
        info = probe(media)
    assert info == probe(large)
    assert sum(taken) < SHARE * large.stat().st_size
    assert len(taken) < 50


def test_a_buffered_file_is_left_as_it_was(large: Path, tmp_path: Path) -> None:
    matroska = make_clip(tmp_path / "a.mkv", frames=20)
    for path in (large, matroska):
        with path.open("rb") as file:
            file.read(10)
            info = probe(file)
            assert info == probe(path)
            file.seek(10)
            assert file.read(20) == path.read_bytes()[10:30]


def test_of_120_gigabytes_too(tmp_path: Path) -> None:
    """A sparse file: a clip whose samples lie behind a hole."""
    clip = make_clip(tmp_path / "a.mp4", frames=40, b_frames=2)
    hole = 120_000_000_000
    path = behind_a_hole(clip, tmp_path / "hole.mp4", hole)
    with Counting(path) as file:
        # The samples lie elsewhere, and so does the trail to each.
        there, here = probe(file), probe(clip)
        assert replace(there, trail=here.trail, keyframe_trail=here.keyframe_trail) == here
        assert file.taken < 1_000_000


def behind_a_hole(clip: Path, path: Path, hole: int) -> Path:
    """``clip``, of one track, with so many zeros before its first sample."""
    data = clip.read_bytes()
    start, moov = data.index(b"mdat") - 4, data.index(b"moov") - 4
    at = data.index(b"stco", moov) - 4
    end = at + int.from_bytes(data[at : at + 4], "big")
    count = int.from_bytes(data[at + 12 : at + 16], "big")
    # The header of ``mdat`` grows by 8 bytes, each offset by 4, and with them every box around the table.
    offsets = [int.from_bytes(data[n : n + 4], "big") + hole + 8 for n in range(at + 16, end, 4)]
    table = struct.pack(f">I4sII{count}Q", 16 + 8 * count, b"co64", 0, count, *offsets)
    table = bytearray(data[moov:at] + table + data[end:])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        size = table.index(name) - 4
        table[size : size + 4] = struct.pack(">I", int.from_bytes(table[size : size + 4], "big") + 4 * count)
    with path.open("wb") as out:
        out.write(data[:start] + struct.pack(">I4sQ", 1, b"mdat", moov - start + 8 + hole))
        out.seek(hole, 1)
        out.write(data[start + 8 : moov] + table)
    return path


@pytest.mark.parametrize("faststart", [False, True])
def test_tables_of_all_kinds(tmp_path: Path, faststart: bool, answers: list[bool]) -> None:
    options = {"movflags": "+faststart"} if faststart else {}
    for name, codec, b_frames in [("a.mp4", "libx264", 3), ("b.mov", "mpeg4", 0), ("c.mp4", "libx265", 2)]:
        clip = make_clip(
            tmp_path / name, codec=codec, frames=40, b_frames=b_frames, audio="aac", container_options=options
        )
        assert probe(clip) == probe(clip, tables=False)
    assert answers == [True] * 3


REORDERED = {"x264-params": "b-adapt=0:scenecut=0"}


def test_offsets_may_be_negative(tmp_path: Path, answers: list[bool]) -> None:
    options = {"movflags": "+negative_cts_offsets"}
    clip = make_clip(tmp_path / "a.mp4", b_frames=2, options=REORDERED, container_options=options)
    assert probe(clip) == probe(clip, tables=False)
    assert answers == [True]


def test_the_last_duration_is_that_of_the_last_shown(tmp_path: Path, answers: list[bool]) -> None:
    pts = [0, 3, 4, 9, 11, 12, 20, 21, 40]
    clip = make_clip(
        tmp_path / "a.mp4", pts=pts, time_base=Fraction(1, 100), b_frames=2, gop=50, options=REORDERED
    )
    with av.open(str(clip)) as file:
        packets = [(packet.pts, packet.duration) for packet in file.demux(video=0) if packet.size]
    assert max(packets)[1] != packets[-1][1], "shown last is not stored last"
    assert probe(clip).last_duration == max(packets)[1]
    assert probe(clip) == probe(clip, tables=False)
    assert answers == [True] * 2


def test_edits_in_another_order_are_left_to_the_packets(tmp_path: Path, answers: list[bool]) -> None:
    """Both halves of a clip, the second first."""
    clip = edited(tmp_path, (12, 12), (12, 0), gop=12, b_frames=2, options=REORDERED)
    assert probe(clip) == probe(clip, tables=False)
    assert answers == [False]


@pytest.mark.parametrize(
    "options",
    [
        {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
        {"container_options": {"movflags": "frag_keyframe"}},
        {"options": {"x264-params": "intra-refresh=1:keyint=12"}, "frames": 40},
    ],
    ids=["fragments", "fragments behind samples", "keyframes that are none"],
)
def test_what_is_unusual_is_left_to_the_packets(
    tmp_path: Path, options: dict[str, object], answers: list[bool]
) -> None:
    clip = make_clip(tmp_path / "a.mp4", **options)  # type: ignore[arg-type]
    assert probe(clip) == probe(clip, tables=False)
    assert answers == [False]


def test_a_file_that_ends_early_is_left_to_the_packets(tmp_path: Path, answers: list[bool]) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=60, container_options={"movflags": "+faststart"})
    data = clip.read_bytes()
    clip.write_bytes(data[:-1])
    assert probe(clip) == probe(clip, tables=False)
    assert answers == [False]


def told(source: Path, *, tables: bool) -> VideoInfo | str:
    try:
        return probe(source, tables=tables)
    except SourceError as error:
        return str(error)


def test_damaged_tables_tell_nothing_else_than_the_packets(tmp_path: Path, answers: list[bool]) -> None:
    whole = make_clip(tmp_path / "a.mp4", frames=40, b_frames=2).read_bytes()
    table = whole.index(b"moov")
    draw = random.Random(6)
    for number in range(200):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(table, len(data))] = draw.choice((0, 1, 255, draw.randrange(256)))
        path = tmp_path / "damaged.mp4"
        path.write_bytes(data)
        short, full = told(path, tables=True), told(path, tables=False)
        if isinstance(short, VideoInfo) and isinstance(full, VideoInfo):
            # A parser may see keyframes that the tables do not name; seeking, which goes by the tables, never does.
            assert set(short.keyframe_pts) <= set(full.keyframe_pts)
            trails = dict(zip(full.keyframe_pts, full.keyframe_trail, strict=True))
            assert [trails[pts] for pts in short.keyframe_pts] == list(short.keyframe_trail)
            short = replace(short, keyframe_pts=full.keyframe_pts, keyframe_trail=full.keyframe_trail)
        assert short == full, number
    assert 20 < sum(answers) < len(answers) - 20
