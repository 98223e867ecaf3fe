"""GOPs that come in order cost one reading of their source, where no seek leads to them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

import s2vc_ray.beginning
import s2vc_ray.seeking
import s2vc_ray.source_io
import s2vc_ray.standby
import s2vc_ray.ticks
from s2vc_ray.frames import DecodedGop, decode_gop
from s2vc_ray.probe import probe
from s2vc_ray.source_io import decode_packet, open_source, packets_of
from s2vc_ray.split import GopSpecs, split
from s2vc_ray.standby import Met, Reading, Standbys
from s2vc_ray.ticks import _DELAY
from tests.media import make_clip

FRAMES, GOP = 240, 8

Work = Counter[str]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Packets demuxed, frames decoded and sources opened so far."""
    done: Work = Counter()

    def reading(*arguments: object) -> Iterator[object]:
        for packet in packets_of(*arguments):  # type: ignore[arg-type]
            done["packets"] += 1
            yield packet

    def decoding(*arguments: object) -> object:
        found = decode_packet(*arguments)  # type: ignore[arg-type]
        done["frames"] += len(found[0])
        return found

    def opening(*arguments: object) -> object:
        done["openings"] += 1
        return open_source(*arguments)  # type: ignore[arg-type]

    for module in (s2vc_ray.seeking, s2vc_ray.ticks, s2vc_ray.beginning):
        monkeypatch.setattr(module, "packets_of", reading)
    for module in (s2vc_ray.seeking, s2vc_ray.ticks):
        monkeypatch.setattr(module, "decode_packet", decoding)
    monkeypatch.setattr(s2vc_ray.source_io, "open_source", opening)
    return done


def false_keyframes(folder: Path) -> Path:
    """No seek point but the first is one: GOPs are decoded from the beginning."""
    clip = make_clip(folder / "a.flv", codec="flv", frames=FRAMES, gop=24)
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as file:
        places = [packet.pos or 0 for packet in file.demux(video=0) if packet.size]
    for place in places:
        data[place + 11] = data[place + 11] & 15 | 16
    clip.write_bytes(data)
    return clip


def wrong_index(folder: Path, codec: str = "mjpeg", pix_fmt: str = "yuvj420p", frames: int = FRAMES) -> Path:
    """An AVI whose index lacks its third entry: GOPs are sought, not found, and walked to."""
    clip = make_clip(folder / "a.avi", codec=codec, pix_fmt=pix_fmt, b_frames=0, frames=frames, gop=24)
    data = bytearray(clip.read_bytes())
    at = data.index(b"idx1") + 8
    end = at + int.from_bytes(data[at - 4 : at], "little")
    data[at + 32 : end] = data[at + 48 : end] + b"none" + bytes(12)
    clip.write_bytes(data)
    return clip


def wrong_index_and_few_keyframes(folder: Path) -> Path:
    """As `wrong_index`, and what is found instead does not decode, for some time."""
    return wrong_index(folder, "mpeg4", "yuv420p", 2 * FRAMES)


def hidden_index(folder: Path) -> Path:
    """An AVI that is read without its index, which points beside its chunks."""
    clip = make_clip(folder / "a.avi", codec="mpeg4", b_frames=2, frames=FRAMES, gop=24)
    data = bytearray(clip.read_bytes())
    at = data.index(b"idx1")
    for entry in range(at + 8 + 16, at + 8 + int.from_bytes(data[at + 4 : at + 8], "little"), 16):
        place = int.from_bytes(data[entry + 8 : entry + 12], "little") + 4
        data[entry + 8 : entry + 12] = place.to_bytes(4, "little")
    clip.write_bytes(data)
    return clip


def raw(folder: Path) -> Path:
    return make_clip(folder / "a.264", b_frames=2, frames=FRAMES, gop=24)


def one_keyframe(folder: Path) -> Path:
    options = {"x264-params": "scenecut=0:keyint=infinite"}
    return make_clip(folder / "a.mkv", b_frames=2, frames=FRAMES, options=options)


KINDS = (false_keyframes, wrong_index, wrong_index_and_few_keyframes, hidden_index, raw, one_keyframe)


def specs_of(clip: Path) -> GopSpecs:
    return split(probe(clip), source_uri=str(clip), video_id="v", gop=GOP)


def told(gop: DecodedGop) -> tuple[object, ...]:
    return gop.pts, gop.digests, gop.frames.tobytes(), gop.corrupt, gop.missing, gop.strayed


@pytest.mark.parametrize("make", KINDS)
def test_in_order_costs_one_reading(tmp_path: Path, work: Work, make: Callable[[Path], Path]) -> None:
    clip = make(tmp_path)
    specs = specs_of(clip)
    work.clear()
    alone = [told(decode_gop(str(clip), spec)) for spec in specs]
    frames = specs.info.frames
    tried = (_DELAY + 8) * len(specs) if make is wrong_index_and_few_keyframes else 0
    assert work["packets"] - tried > 10 * frames, "the clip is no example"
    for stride, readings in ((1, 1), (2, 2)):
        held = Standbys()
        work.clear()
        for begin in range(stride):
            for spec in specs[begin::stride]:
                with held.of(str(clip), "v", spec.pts[0]) as source:
                    assert told(decode_gop(source, spec)) == alone[spec.index]
        assert work["packets"] < (readings + 0.5) * frames + tried
        # Of GOPs that need not be decoded from the beginning, those that a keyframe lies in are decoded twice.
        assert work["frames"] < (readings + 1) * frames + tried
        held.close()


@pytest.mark.parametrize("make", KINDS)
def test_in_any_order_frames_are_the_same(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    clip = make(tmp_path)
    specs, held, draw = specs_of(clip), Standbys(), random.Random(1)
    alone = [told(decode_gop(str(clip), spec)) for spec in specs]
    # GOPs 3 to 5 have one seek point. Then mostly on, now and then elsewhere, and back to the beginning.
    order = [3, 0, 4, 1, 5]
    while len(order) < 60:
        at = order[-1]
        order.append(
            draw.choice((at + 1, at + 1, at + 1, at + 2, at - 1, draw.randrange(30), 0)) % len(specs)
        )
    for at in order:
        with held.of(str(clip), "v", specs[at].pts[0]) as source:
            assert told(decode_gop(source, specs[at])) == alone[at]


@pytest.mark.parametrize("make", KINDS)
def test_threads_that_overtake_each_other_cost_one_reading_each(
    tmp_path: Path, work: Work, make: Callable[[Path], Path]
) -> None:
    clip = make(tmp_path)
    specs, held = specs_of(clip), Standbys()
    work.clear()
    for at in range(0, len(specs), 2):
        with (
            held.of(str(clip), "v", specs[at].pts[0]) as late,
            held.of(str(clip), "v", specs[at + 1].pts[0]) as early,
        ):
            decode_gop(early, specs[at + 1])
            decode_gop(late, specs[at])
    tried = (_DELAY + 8) * len(specs) if make is wrong_index_and_few_keyframes else 0
    assert work["packets"] < 2.5 * specs.info.frames + tried


def test_frames_behind_a_gop_come_again(tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where some are missing, frames behind are looked at: of them the next GOP is made."""
    clip = make_clip(tmp_path / "a.mkv", codec="mpeg4", b_frames=0, frames=FRAMES, gop=FRAMES)
    data, draw = bytearray(clip.read_bytes()), np.random.default_rng(1)
    specs = specs_of(clip)
    with av.open(str(clip)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    for number in draw.choice(np.arange(20, FRAMES - 20), 6, replace=False):
        packet = packets[number]
        begin = (packet.pos or 0) + 6
        data[begin : begin + packet.size - 8] = bytes(packet.size - 8)
    clip.write_bytes(data)
    alone = [told(decode_gop(str(clip), spec)) for spec in specs]
    assert sum(bool(gop[4]) for gop in alone) > 3, "nothing is missing"

    def in_turn() -> int:
        held = Standbys()
        work.clear()
        for spec in specs:
            with held.of(str(clip), "v", spec.pts[0]) as source:
                assert told(decode_gop(source, spec)) == alone[spec.index]
        return work["frames"]

    cost = in_turn()
    monkeypatch.setattr(s2vc_ray.standby, "_LATER_BYTES", 0)
    assert in_turn() > cost


def test_who_stands_nearest_before_goes_on(tmp_path: Path) -> None:
    clip = raw(tmp_path)
    held = Standbys()
    with (
        held.of(str(clip), "v", 10) as ten,
        held.of(str(clip), "v", 30) as thirty,
        held.of(str(clip), "v", 20) as twenty,
    ):
        pass
    for at, wanted in ((25, twenty), (29, twenty), (31, thirty), (11, ten), (5, ten)):
        with held.of(str(clip), "v", at) as found:
            assert found is wanted, at


def frame(pts: int) -> Met:
    return pts, 0, av.VideoFrame(16, 16, "gray")


def test_a_reading_gives_what_another_of_its_key_would() -> None:
    order = [0, 1, 3, 2, 5, 4, 7, 6, 9, 8]
    reading = Reading("key", (frame(pts) for pts in order))

    def read(last: int, count: int) -> list[int]:
        return [pts for pts, _, _ in islice(reading.until(last), count)]

    assert read(2, 6) == [0, 1, 3, 2, 5, 4]
    assert reading.leads_to("key", 3)
    assert not reading.leads_to("another", 3)
    assert not reading.leads_to("key", 2)
    assert read(4, 1) == [3]
    assert read(4, 4) == [5, 4, 7, 6]
    assert read(9, 99) == [5, 7, 6, 9, 8]
    assert not reading.leads_to("key", 9)
    assert read(9, 99) == []


def test_of_pictures_that_come_again_memory_holds_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(plane.buffer_size for plane in frame(0)[2].planes)
    monkeypatch.setattr(s2vc_ray.standby, "_LATER_BYTES", 3 * size)
    reading = Reading("key", (frame(pts) for pts in range(20)))
    assert len(list(islice(reading.until(1), 5))) == 5
    assert reading.leads_to("key", 2)
    assert len(list(islice(reading.until(1), 4))) == 4
    assert not reading.leads_to("key", 2)
    assert not reading.leads_to("key", 5)
    assert reading.leads_to("key", 6)


def test_other_threads_another_reading(tmp_path: Path, work: Work) -> None:
    """Pictures come later out of a decoder with threads: it is another reading."""
    clip = one_keyframe(tmp_path)
    specs, held = specs_of(clip), Standbys()
    for threads, index in ((1, 0), (3, 1), (3, 2), (1, 3)):
        with held.of(str(clip), "v", specs[index].pts[0]) as source:
            gop = decode_gop(source, specs[index], threads=threads)
        assert told(gop) == told(decode_gop(str(clip), specs[index]))
    assert work["openings"] == 4 + 3
