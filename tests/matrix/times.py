"""When frames are shown: variable rates, edit lists, late and negative first times, offsets, wraps and jumps."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from s2vc_ray.errors import ConfigError
from tests.matrix.case import Case, Run
from tests.matrix.facts import shown
from tests.media import make_clip

_VARIABLE = [0, 1001, 1500, 4004, 5005, 9009, 9040, 12012, 13013, 30030]
_MILLISECOND = Fraction(1, 1000)


def archived(run: Run) -> list[Fraction]:
    """The archived frames' times in seconds."""
    return [pts * run.reader.header.time_base for pts in run.pts]


def _exact(source: Path, run: Run) -> str:
    """Times and the last duration are the source's, in the archive and in .mp4, and rounded at most in .mkv."""
    times = shown(source)
    assert run.result.status == "ok", run.result.error
    assert archived(run) == times
    late = max(Fraction(0), -times[0])
    assert shown(run.output(".mp4")) == [time + late for time in times]
    pairs = zip(shown(run.output(".mkv")), times, strict=True)
    assert max(abs(got - (time + late)) for got, time in pairs) <= _MILLISECOND / 2
    moved = f", {float(late):.3f} s later in the output, which says so" if late else ""
    assert bool(late) == any("later than in the source" in note for note in run.report(".mp4").notes)
    return f"{len(times)} times exact in archive and .mp4, within 0.5 ms in .mkv{moved}"


def _clip(name: str, pts: list[int], unit: Fraction, **options: object) -> Callable[[Path], Path]:
    return lambda folder: make_clip(folder / name, pts=pts, time_base=unit, **options)  # type: ignore[arg-type]


def _steps(first: int, frames: int = 20) -> list[int]:
    return list(islice(count(first), frames))


def _rate(source: Path, run: Run) -> str:
    result = _exact(source, run)
    assert run.reader.header.average_rate == Fraction(60000, 1001)
    return f"rate 60000/1001; {result}"


def _too_close(source: Path, run: Run) -> str:
    assert shown(run.output(".mp4")) == archived(run) == shown(source)
    with pytest.raises(ConfigError, match=r"one millisecond; write \.mp4"):
        run.output(".mkv")
    return "exact in archive and .mp4; .mkv refused, pointing to .mp4"


def _pauses(count: int) -> Callable[[Path], Path]:
    """A frame every 200 ms, each shown for 200 ms, but ``count`` from the third on for 15 ms and more."""

    def make(folder: Path) -> Path:
        plain = make_clip(folder / "plain.mkv", frames=count + 8, b_frames=0, codec="mpeg4", gop=12)
        path = folder / "pauses.mkv"
        with av.open(str(plain)) as source, av.open(str(path), "w") as out:
            video = out.add_stream_from_template(source.streams.video[0], opaque=True)
            for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
                packet.stream, packet.time_base = video, _MILLISECOND
                packet.pts = packet.dts = 200 * number
                packet.duration = 15 + number % 100 if 2 <= number < count + 2 else 200
                out.mux(packet)
        return path

    return make


def _durations(path: Path) -> list[tuple[Fraction, Fraction]]:
    """When each frame is shown, and for how long, by its packet; in seconds."""
    with av.open(str(path)) as file:
        unit = file.streams.video[0].time_base or Fraction(1)
        packets = [packet for packet in file.demux(video=0) if packet.size]
        return sorted(((packet.pts or 0) * unit, (packet.duration or 0) * unit) for packet in packets)


def _pauses_kept(source: Path, run: Run) -> str:
    before, header = _durations(source), run.reader.header
    brief = [(time, lasts) for time, lasts in before if lasts < Fraction(1, 5)]
    kept = [(pts * header.time_base, lasts * header.time_base) for pts, lasts in header.durations]
    assert kept == brief
    assert len(brief) == 5
    assert _durations(run.output(".mkv")) == before
    assert shown(run.output(".mp4")) == shown(source)
    assert not header.decisions
    return (
        f"the durations of {len(kept)} frames exact in archive and .mkv; .mp4 shows each until the next one"
    )


def _too_many_pauses(source: Path, run: Run) -> str:
    header = run.reader.header
    assert not header.durations
    (said,) = header.decisions
    assert run.rows[0]["source_notes"] == said
    assert {lasts for _, lasts in _durations(run.output())[:-1]} == {Fraction(1, 5)}
    return f"says: {said}"


def _last_long(folder: Path) -> Path:
    """The last frame is shown for a second."""
    plain = make_clip(folder / "plain.mkv", frames=6, b_frames=0)
    path = folder / "last.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        packets = [packet for packet in source.demux(video=0) if packet.size]
        packets[-1].duration = 1000
        for packet in packets:
            packet.stream = video
            out.mux(packet)
    return path


def _last_kept(source: Path, run: Run) -> str:
    header = run.reader.header
    assert header.last_duration * header.time_base == 1
    with av.open(str(run.output(".mp4"))) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        assert packets[-1].duration * packets[-1].time_base == 1
    return "1 s in archive and .mp4"


def _trimmed(folder: Path) -> Path:
    """B-frames, and three frames before time 0, which the edit list hides."""
    whole = make_clip(folder / "whole.mov", frames=16, gop=8, b_frames=2, options={"sc_threshold": "0"})
    path = folder / "trimmed.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                step = round(Fraction(3, 25) / packet.time_base)
                packet.pts, packet.dts = packet.pts - step, packet.dts - step
                packet.stream = video
                out.mux(packet)
    return path


def edited(folder: Path, *edits: tuple[int, int], **options: Any) -> Path:
    """An mp4 of 24 frames whose edit list shows so many from this one on, and so on; written over a finished one's."""
    usual = {"gop": 8, "b_frames": 0, "options": {"sc_threshold": "0"}}
    plain = make_clip(folder / "plain.mp4", frames=24, **{**usual, **options})
    with av.open(str(plain)) as file:
        step = round(Fraction(1, 25) / (file.streams.video[0].time_base or Fraction(1)))
    data = plain.read_bytes()
    entries = b"".join(struct.pack(">IiHH", 40 * frames, step * first, 1, 0) for frames, first in edits)
    box = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    at = data.index(b"elst") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    assert data.index(b"mdat") < at  # chunk offsets stay true
    cut = bytearray(data[:at] + box + data[at + length :])
    for name in (b"edts", b"trak", b"moov"):
        size = cut.index(name) - 4
        grown = int.from_bytes(cut[size : size + 4], "big") + len(box) - length
        cut[size : size + 4] = grown.to_bytes(4, "big")
    path = folder / "edited.mp4"
    path.write_bytes(cut)
    return path


def _shown_only(source: Path, run: Run) -> str:
    result = _exact(source, run)
    assert len(run.pts) == 13
    assert run.reader.header.frames == 13
    return f"the 3 hidden frames are not coded; {result}"


def _negative(folder: Path) -> Path:
    return make_clip(
        folder / "negative.mkv",
        pts=_steps(-4),
        b_frames=0,
        container_options={"avoid_negative_ts": "disabled"},
    )


def _untimed_said(source: Path, run: Run) -> str:
    with av.open(str(source)) as file:
        untimed = sum(frame.pts is None for frame in file.decode(video=0))
    assert untimed == 4
    assert (run.result.status, run.result.frames, run.result.frames_lost) == ("partial", 16, 4)
    assert "4 frames without a time stamp not coded" in run.result.notes
    return "partial: the 16 frames from time 0 on; says that 4 have no time"


def _wrap(folder: Path) -> Path:
    """The 33 bits of a transport stream's clock overflow after the tenth frame."""
    start = 25 * 2**33 // 90000 - 35 - 10
    return make_clip(folder / "wrap.ts", pts=_steps(start), gop=8)


def _wrapped(source: Path, run: Run) -> str:
    assert -2 < shown(source)[0] < 0  # FFmpeg counts from the wrap on
    return _exact(source, run)


def _joined(folder: Path, *first: int, frames: int = 24) -> Path:
    """Transport streams one behind the other; each begins at its own time."""
    parts = [
        make_clip(folder / f"{start}.ts", pts=_steps(start, frames), seed=start, b_frames=0).read_bytes()
        for start in first
    ]
    path = folder / "joined.ts"
    path.write_bytes(b"".join(parts))
    return path


def _jump_refused(source: Path, run: Run) -> str:
    reason = run.refused()
    assert "clock jumps back" in reason
    assert "remux" in reason
    return "refused: the clock jumps back; says where, and how to remux"


def _same_times_refused(source: Path, run: Run) -> str:
    assert "claim the same time" in run.refused()
    return "refused: two frames claim the same time"


def _gap(source: Path, run: Run) -> str:
    times = shown(source)
    assert max(b - a for a, b in pairwise(times)) > 3000
    assert archived(run) == times
    assert shown(run.output(".mp4")) == times
    return f"{len(times)} frames with the gap of an hour between them"


def _no_pts(source: Path, run: Run) -> str:
    with av.open(str(source)) as file:
        frames = len(list(file.decode(video=0)))
    times = archived(run)
    assert len(times) == frames
    assert {b - a for a, b in pairwise(times)} == {Fraction(1, 25)}
    assert run.result.status == "ok"
    return f"{frames} frames named by count, 1/25 s apart"


def _long(source: Path, run: Run) -> str:
    with av.open(str(source)) as file:
        assert sum(packet.is_keyframe for packet in file.demux(video=0)) == 1
    long = Run(source, run.folder, gop=32)
    assert [entry.frames for entry in long.reader.index.gops] == [32] * 9 + [12]
    assert archived(long) == shown(source)
    return "10 GOPs of at most 32 frames, every time exact"


CASES = (
    Case(
        "variable frame rate, mp4, unit 1/30000 s",
        "every time stamp",
        _clip("vfr.mp4", _VARIABLE, Fraction(1, 30000)),
        _exact,
    ),
    Case(
        "variable frame rate, mkv",
        "every time stamp",
        _clip("vfr.mkv", [0, 3, 4, 9, 11, 12, 20, 21, 40], Fraction(1, 100)),
        _exact,
    ),
    Case(
        "60000/1001 frames per second",
        "the rate and every time stamp",
        _clip("ntsc.mp4", _steps(0), Fraction(1001, 60000), rate=Fraction(60000, 1001)),
        _rate,
    ),
    Case(
        "frames 1/30000 s apart, mp4",
        "every time stamp; .mkv, which counts milliseconds, refuses",
        _clip("close.mp4", [0, 1000, 1001, 2000], Fraction(1, 30000), b_frames=0),
        _too_close,
    ),
    Case("last frame shown for a second, mp4", "its duration", _last_long, _last_kept),
    Case("frames that end before the next begin, mkv", "their durations", _pauses(5), _pauses_kept),
    Case(
        "1025 frames that end before the next begin, mkv",
        "word of what is not kept",
        _pauses(1025),
        _too_many_pauses,
    ),
    Case(
        "mp4 edit list over B-frames",
        "the frames that players show, at their times",
        _trimmed,
        _shown_only,
    ),
    Case(
        "mp4 edit list that hides the last 14 of 24 frames",
        "the frames that players show, and no word of damage",
        lambda folder: edited(folder, (10, 0)),
        _exact,
    ),
    Case(
        "mp4 edit list that shows the end before the beginning",
        "the frames that players show, at their times",
        lambda folder: edited(folder, (4, 10), (6, 2)),
        _exact,
    ),
    Case(
        "four frames before time 0, mkv, where FFmpeg knows no time for them",
        "all others, and word of the four",
        _negative,
        _untimed_said,
    ),
    Case(
        "first frame at 5.2 s, mp4",
        "every time stamp",
        _clip("late.mp4", _steps(130), Fraction(1, 25)),
        _exact,
    ),
    Case(
        "first frame at 10 hours, mkv",
        "every time stamp",
        _clip("hours.mkv", _steps(900_000), Fraction(1, 25)),
        _exact,
    ),
    Case(
        "first frame at 10 hours, ts",
        "every time stamp",
        _clip("hours.ts", _steps(900_000), Fraction(1, 25)),
        _exact,
    ),
    Case("ts whose 33-bit clock wraps", "frames in order, times going on", _wrap, _wrapped),
    Case(
        "two ts joined, the second an hour later",
        "all frames, and the gap",
        lambda folder: _joined(folder, 0, 90_000),
        _gap,
    ),
    Case(
        "two ts joined, the second earlier",
        "refused: frames would be shuffled",
        lambda folder: _joined(folder, 500, 100),
        _jump_refused,
    ),
    Case(
        "three ts joined that overlap by half a frame's time",
        "refused: frames would be shuffled",
        lambda folder: _joined(folder, 0, 25, 2),
        _jump_refused,
    ),
    Case(
        "a ts joined to itself",
        "refused: no frame can be told from its twin",
        lambda folder: _joined(folder, 0, 0, frames=8),
        _same_times_refused,
    ),
    Case(
        "raw H.264 without time stamps, B-frames",
        "all frames in order",
        lambda folder: make_clip(folder / "raw.264", b_frames=2),
        _no_pts,
    ),
    Case(
        "avi without presentation times, B-frames",
        "all frames in order",
        lambda folder: make_clip(folder / "bframes.avi", codec="mpeg4", b_frames=2),
        _no_pts,
    ),
    Case(
        "one frame",
        "it",
        lambda folder: make_clip(folder / "one.mp4", frames=1),
        _exact,
    ),
    Case(
        "300 frames behind one keyframe, archived in GOPs of 32",
        "all frames",
        lambda folder: make_clip(
            folder / "long.mp4", frames=300, gop=300, options={"sc_threshold": "0", "preset": "ultrafast"}
        ),
        _long,
    ),
)
