"""The clips of a chaos run, and what must become of each: most are healthy, some are not."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from jobs.demo import packaged_clip
from tests import media

GOP = 8
Pictures = npt.NDArray[np.uint8]
_ATTACHMENT_BYTES = 18 << 20
"""More than one part of a multipart upload."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One source. ``status`` is the manifest's word for its end; ``frames`` are those in its archive."""

    name: str
    status: str
    frames: int = 0
    error_class: str | None = None
    error_gop: int | None = None

    @property
    def gops(self) -> int:
        """GOPs that its archive must hold."""
        return -(-self.frames // GOP)


def make_footage(folder: Path, *, short: bool = False) -> list[Clip]:
    """Write all clips under ``folder``. ``short`` leaves out the packaged real ones and the large one."""
    (folder / "tapes").mkdir(parents=True)
    made = [*_generated(folder), *_damaged(folder)]
    if not short:
        made += [*_real(folder), _large(folder)]
    return made


def _generated(folder: Path) -> list[Clip]:
    media.make_clip(folder / "waves.mp4", frames=40, audio="aac")
    media.make_clip(folder / "tapes/hevc.mkv", codec="libx265", frames=27, size=(64, 48), seed=1)
    media.make_clip(folder / "tapes/still.mov", frames=1, seed=2)
    uneven = list(itertools.accumulate([0, *[40, 33, 47, 80] * 5, 40]))
    media.make_clip(
        folder / "uneven.mkv",
        pts=uneven,
        time_base=Fraction(1, 1000),
        size=(66, 50),
        audio="pcm_s16le",
        seed=3,
    )
    return [
        Clip("waves.mp4", "ok", 40),
        Clip("tapes/hevc.mkv", "ok", 27),
        Clip("tapes/still.mov", "ok", 1),
        Clip("uneven.mkv", "ok", len(uneven)),
    ]


def _damaged(folder: Path) -> list[Clip]:
    """Not a video; one whose third GOP cannot be decoded, tried again and given up; one cut short."""
    media.text_file(folder / "letter.mp4")
    poison = media.make_clip(folder / "poison.mp4", frames=32, b_frames=0, seed=4)
    _blank(poison, range(2 * GOP, 3 * GOP))
    whole = media.make_clip(folder / "whole.tmp.mkv", frames=40, seed=5)
    cut = media.truncate(whole, folder / "cut.mkv", 0.7)
    whole.unlink()
    with av.open(str(cut)) as container:
        left = sum(1 for packet in container.demux(video=0) if packet.size)
    return [
        Clip("letter.mp4", "failed", error_class="SourceError"),
        Clip("poison.mp4", "failed", error_class="SourceError", error_gop=2),
        Clip("cut.mkv", "partial", left, "IncompleteSource"),
    ]


def _blank(path: Path, frames: range) -> None:
    """Overwrite what follows the length in each of these H.264 packets: no decoder gives a picture for it."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for at, size in places[frames.start : frames.stop]:
        assert at is not None
        data[at + 4 : at + size] = bytes(size - 4)
    path.write_bytes(data)


def _real(folder: Path) -> list[Clip]:
    """Filmed and drawn pictures, scaled down, with and without sound."""
    packaged = packaged_clip().parent
    clips = []
    for name, origin, frames, size, audio in (
        ("bikes.mp4", "bikes.mp4", 32, (96, 64), "aac"),
        ("tapes/bikes-later.mkv", "bikes.mp4", 30, (64, 48), None),
        ("bunny.mkv", "bigbuckbunny.mp4", 32, (64, 48), "aac"),
        ("tapes/carphone.mp4", "carphone_pristine.mp4", 25, (64, 48), None),
    ):
        skipped = 60 if "later" in name else 0
        rgb = _pictures(packaged / origin, range(skipped, skipped + frames), size)
        media.make_clip(folder / name, rgb=rgb, size=size, audio=audio)
        clips.append(Clip(name, "ok", frames))
    return clips


def _pictures(path: Path, wanted: range, size: tuple[int, int]) -> Pictures:
    with av.open(str(path)) as container:
        frames = itertools.islice(container.decode(video=0), wanted.start, wanted.stop)
        return np.stack(
            [frame.reformat(*size, format="rgb24").to_ndarray(format="rgb24") for frame in frames]
        )


def _large(folder: Path) -> Clip:
    """An attachment makes the archive take a multipart upload."""
    plain = media.make_clip(folder / "plain.tmp.mkv", frames=16, seed=6)
    with av.open(str(plain)) as source, av.open(str(folder / "large.mkv"), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        noise = np.random.default_rng(7).bytes(_ATTACHMENT_BYTES)
        out.add_attachment("scan.bin", "application/octet-stream", noise)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    plain.unlink()
    return Clip("large.mkv", "ok", 16)
