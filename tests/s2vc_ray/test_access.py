"""Any stretch of an archive by itself: the right pictures, and no more bytes and GOPs than they take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s2vc_ray
from s2vc_ray import access
from s2vc_ray.access import OpenArchive
from s2vc_ray.archive import GopRecord
from s2vc_ray.errors import ConfigError, CorruptArchive, ObjectMissing, WrongWeights
from s2vc_ray.moments import FrameNumber
from s2vc_ray.range_stream import RangeStream
from s2vc_ray.s3_bucket import Bucket
from s2vc_ray.storage import open_storage
from tests.archives import archive_bytes
from tests.fakes import FakeCodec, load_fake
from tests.seaweed import SeaweedServer

UNIT = Fraction(1, 100)
SIZE = (64, 48)


def pictures(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Noise that the fake codec keeps exactly: blocks of its step."""
    width, height = size
    small = np.random.default_rng(seed).integers(
        0, 256, (count, -(-height // 8), -(-width // 8), 3), np.uint8
    )
    return small.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def make(pts: Sequence[Sequence[int]], size: tuple[int, int] = SIZE, lost: int = 0, **changes: Any) -> bytes:
    """An archive whose GOPs have these time stamps in hundredths; ``lost`` frames are missing before each."""
    codec, gops, first = load_fake("fake", "cpu"), [], 0
    for index, times in enumerate(pts):
        first += lost
        (coded,) = codec.encode_gops([pictures(len(times), index, size)], 32)
        gops.append(GopRecord(index, first, 32, tuple(times), coded.to_payload()))
        first += len(times)
    fields = {
        "weights_sha256": codec.weights_sha256,
        "width": size[0],
        "height": size[1],
        "time_base": UNIT,
        "last_duration": 4,
        "average_rate": Fraction(25),
        "frames": first,
    }
    return archive_bytes(gops, (), **{**fields, **changes})


STEADY = [list(range(begin, begin + 32, 4)) for begin in (100, 132, 164, 196)]


def opened(tmp_path: Path, data: bytes, **options: Any) -> OpenArchive:
    path = tmp_path / "a.s2vc"
    path.write_bytes(data)
    return s2vc_ray.open_archive(str(path), **{"model": "fake", "load_codec": load_fake, **options})


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_all_frames_in_order(tmp_path: Path, batch: int) -> None:
    with opened(tmp_path, make(STEADY), batch=batch) as archive:
        frames = list(archive.frames())
        assert archive.duration == 128 * UNIT
        assert archive.header.frames == 32
    assert [frame.number for frame in frames] == list(range(32))
    assert [frame.pts for frame in frames] == [pts for gop in STEADY for pts in gop]
    assert [frame.seconds for frame in frames] == [4 * number * UNIT for number in range(32)]
    whole = np.concatenate([pictures(8, seed) for seed in range(4)])
    assert all(np.array_equal(frame.rgb, rgb) for frame, rgb in zip(frames, whole, strict=True))


@pytest.mark.parametrize(
    ("start", "end", "numbers"),
    [
        (0, None, range(32)),
        (0.32, 0.64, range(8, 16)),
        (Fraction(1, 3), Fraction(2, 3), range(8, 17)),
        (0.30, 0.33, range(7, 9)),
        (0.5, 0.5001, range(12, 13)),
        (None, 0.04, range(1)),
        (1.24, 99, range(31, 32)),
        (1.27, None, range(31, 32)),
        (FrameNumber(9), FrameNumber(17), range(9, 17)),
        (FrameNumber(31), None, range(31, 32)),
    ],
)
def test_stretches(tmp_path: Path, start: Any, end: Any, numbers: range) -> None:
    with opened(tmp_path, make(STEADY)) as archive:
        stretch = archive.stretch(start, end)
        frames = list(archive.frames(start, end))
    assert [frame.number for frame in frames] == list(numbers)
    assert stretch.frames == len(numbers)
    assert stretch.last_duration == 4
    assert stretch.begin == (None if numbers[0] == 0 else frames[0].pts)
    assert stretch.end == (None if numbers[-1] == 31 else frames[-1].pts + 4)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    start=st.integers(0, 400),
    length=st.integers(1, 400),
)
def test_any_stretch_is_what_is_on_screen(
    steps: list[int], lengths: list[int], start: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a filter over all frames."""
    count = sum(lengths)
    times = [7]
    while len(times) < count:
        times.append(times[-1] + steps[len(times) % len(steps)])
    cuts = np.cumsum([0, *lengths])
    gops = [times[a:b] for a, b in pairwise(cuts)]
    with opened(tmp_path_factory.mktemp("any"), make(gops, size=(8, 8))) as archive:
        begin, until = start * UNIT, (start + length) * UNIT
        frames = list(archive.frames())
        if begin >= archive.duration:
            with pytest.raises(ConfigError, match="lasts"):
                archive.stretch(begin, until)
            return
        at = max(number for number, frame in enumerate(frames) if frame.seconds <= begin)
        wanted = [frame.number for frame in frames[at:] if frame.seconds < until]
        assert [frame.number for frame in archive.frames(begin, until)] == wanted
        assert archive.stretch(begin, until).frames == len(wanted)


def test_stretches_that_are_not_there(tmp_path: Path) -> None:
    with opened(tmp_path, make(STEADY)) as archive:
        for start, end, says in (
            (1.28, None, "lasts 0:00:01.280"),
            (-1, None, "before the first picture"),
            (0.5, 0.5, "later than the start"),
            (0.5, 0.2, "later than the start"),
            (FrameNumber(32), None, "#0 to #31"),
        ):
            with pytest.raises(ConfigError, match=says):
                archive.frames(start, end)


def test_frames_count_what_the_source_should_hold(tmp_path: Path) -> None:
    with opened(tmp_path, make(STEADY, lost=2)) as archive:
        assert [frame.number for frame in archive.frames(0.3, 0.36)] == [9, 12]
        assert [frame.number for frame in archive.frames(FrameNumber(11), FrameNumber(13))] == [9, 12]


class Counted:
    """An object behind ranged reads, as a store gives it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ranges: list[tuple[int, int]] = []

    def open(self, uri: str) -> Any:
        return RangeStream(len(self.data), self.read).buffered()

    def read(self, start: int, end: int) -> bytes:
        self.ranges.append((start, end))
        return self.data[start:end]


def test_only_what_a_stretch_needs_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = 4096
    monkeypatch.setattr("s2vc_ray.range_stream._READ_AHEAD", ahead)
    counted = Counted(
        make([list(range(begin, begin + 32, 4)) for begin in range(0, 20 * 32, 32)], (320, 240))
    )
    monkeypatch.setattr(access, "open_source", counted.open)
    decoded: list[int] = []
    decode = FakeCodec.iter_decode

    def counting(self: FakeCodec, wanted: Any) -> Any:
        decoded.append(len(wanted))
        return decode(self, wanted)

    monkeypatch.setattr(FakeCodec, "iter_decode", counting)
    with s2vc_ray.open_archive("s3://b/a.s2vc", model="fake", load_codec=load_fake) as archive:
        entries = archive.reader.index.gops
        opening, counted.ranges = counted.ranges, []
        frames = list(archive.frames(0.32 * 7 + 0.1, 0.32 * 10 + 0.1))
    assert [frame.number for frame in frames] == list(range(58, 83))
    assert decoded == [2, 2]
    assert sum(end - begin for begin, end in opening) <= 3 * ahead
    assert all(
        entries[7].offset <= begin and end <= entries[11].offset + ahead for begin, end in counted.ranges
    )
    needed = entries[11].offset - entries[7].offset
    assert needed > 20 * ahead
    assert needed <= sum(end - begin for begin, end in counted.ranges) <= needed + 4 * ahead


@pytest.mark.s3
def test_a_stretch_on_s3_takes_a_few_ranged_requests(
    seaweed_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("s2vc_ray.range_stream._READ_AHEAD", 4096)
    data = make([list(range(begin, begin + 32, 4)) for begin in range(0, 20 * 32, 32)], (320, 240))
    storage = open_storage(f"s3://{seaweed_server.new_bucket()}/small")
    storage.put("a.s2vc", data)
    asked: list[int] = []
    get = Bucket.get

    def counting(self: Bucket, key: str, start: int, end: int | None, **options: Any) -> bytes:
        got = get(self, key, start, end, **options)
        asked.append(len(got))
        return got

    monkeypatch.setattr(Bucket, "get", counting)
    with s2vc_ray.open_archive(f"{storage.uri}/a.s2vc", model="fake", load_codec=load_fake) as archive:
        assert [frame.number for frame in archive.frames(3.3, 3.5)] == [82, 83, 84, 85, 86, 87]
        wanted = archive.reader.index.gops[10].length
    assert wanted < sum(asked) < wanted + 6 * 4096 < len(data) / 10
    assert len(asked) <= 8


def test_frames_are_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def load(model: str, device: str) -> FakeCodec:
        loads.append(model)
        return load_fake(model, device)

    with opened(tmp_path, make(STEADY), load_codec=load, batch=1) as archive:
        assert (archive.duration, loads) == (128 * UNIT, [])
        frames = archive.frames()
        assert loads == []
        read: list[int] = []
        gop = archive.reader.gop
        monkeypatch.setattr(archive.reader, "gop", lambda at: read.append(at) or gop(at))
        assert next(frames).number == 0
        assert (loads, read) == (["fake"], [0])


@pytest.mark.parametrize("batch", [1, 2])
def test_decoding_ends_with_the_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    steps: list[int] = []
    decode = FakeCodec.iter_decode

    def counting(self: FakeCodec, gops: Any) -> Any:
        for at, pictures in enumerate(decode(self, gops)):
            steps.append(at)
            yield pictures

    monkeypatch.setattr(FakeCodec, "iter_decode", counting)
    with opened(tmp_path, make(STEADY), batch=batch) as archive:
        assert len(list(archive.frames(FrameNumber(9), FrameNumber(11)))) == 2
    assert steps == [0, 1, 2]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing):
        s2vc_ray.open_archive(str(tmp_path / "gone.s2vc"))
    with pytest.raises(ConfigError, match="batch"):
        opened(tmp_path, make(STEADY), batch=-1)
    with pytest.raises(CorruptArchive, match="no whole GOP"):
        opened(tmp_path, make([]))
    with opened(tmp_path, make(STEADY), model="fake:other") as archive, pytest.raises(WrongWeights):
        next(archive.frames())
    with opened(tmp_path, make(STEADY)) as archive:
        archive._starts.reverse()  # as a forged index could say; no writer of ours does
        with pytest.raises(CorruptArchive, match="go back"):
            archive.stretch(0, 1)


def test_a_closed_archive_is_closed(tmp_path: Path) -> None:
    with opened(tmp_path, make(STEADY)) as archive:
        pass
    with pytest.raises(ValueError, match="closed"):
        list(archive.frames())


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = "import sys, s2vc_ray; print([m for m in sys.modules if m.startswith('s2vc_ray.')], s2vc_ray.open_archive)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] <function open_archive")
    heavy = "import sys, s2vc_ray.access; print([m for m in ('torch', 'ray', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
