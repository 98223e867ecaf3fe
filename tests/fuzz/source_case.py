"""One damaged source video, through everything that reads sources."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from s2vc_ray.errors import S2vcError
from s2vc_ray.frames import decode_gop
from s2vc_ray.passthrough import extract
from s2vc_ray.probe import probe
from s2vc_ray.split import split
from s2vc_ray.values import VideoInfo
from tests.fuzz.case import Case
from tests.fuzz.damage import damage
from tests.fuzz.memory import resident_peak

_GOP = 5
_EDGE = 3000
"""Bytes at either end of a file within which half of all damage falls: there the containers keep their tables."""
_DECODER_PICTURES = 24
"""Pictures that FFmpeg may hold while it decodes, at 12 bytes a pixel: its widest format, padded, and RGB."""
_SLACK = 96 << 20
"""What FFmpeg and the heap keep or take anew by themselves."""


@dataclass
class SourceCases:
    """Makes and judges cases of ``originals``.

    Attributes:
        scratch: an empty folder for the damaged file.
    """

    originals: Sequence[Path]
    scratch: Path
    _needs: dict[str, int] = field(default_factory=dict)

    def run(self, number: int, seed: int) -> Case:
        """The case of this number."""
        rng = random.Random(f"source {seed} {number}")
        original = rng.choice(self.originals)
        how, data = _damaged(original.read_bytes(), rng)
        case = Case(number, how, original.name)
        path = self.scratch / f"case{original.suffix}"
        path.write_bytes(data)
        with resident_peak() as peak:
            info = _read(path, case)
        picture = info.width * info.height if info else 0
        most = 2 * (self._need(original) + picture * (12 * _DECODER_PICTURES + 3 * _GOP)) + _SLACK
        if peak.bytes > most:
            case.violations.append(f"{peak.bytes >> 20} MiB resident for {len(data)} bytes of {how}")
        case.violations.extend(f"wrote {one.name}" for one in self.scratch.iterdir() if one != path)
        if path.read_bytes() != data:
            case.violations.append("changed its source")
        path.unlink(missing_ok=True)
        return case

    def _need(self, original: Path) -> int:
        """What reading the original takes."""
        if original.name not in self._needs:
            copy = self.scratch / original.name
            shutil.copyfile(original, copy)
            with resident_peak() as peak:
                _read(copy, Case(0, "", original.name))
            copy.unlink()
            self._needs[original.name] = peak.bytes
        return self._needs[original.name]


def _damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    out = bytearray(data)
    match rng.randrange(6):
        case 0:
            return "cut short", data[: rng.randrange(1, len(data))]
        case 1:
            return "front", damage(data[:_EDGE], rng, 6) + data[_EDGE:]
        case 2:
            return "back", data[:-_EDGE] + damage(data[-_EDGE:], rng, 6)
        case 3:
            for _ in range(rng.randrange(1, 40)):
                out[rng.randrange(min(len(out), _EDGE))] = rng.randrange(256)
            return "front bytes", bytes(out)
        case 4:
            for _ in range(rng.randrange(1, 400)):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
            return "bits anywhere", bytes(out)
        case _:
            return "anything", damage(data, rng, 12)


def _read(path: Path, case: Case) -> VideoInfo | None:
    info = case.step("probe", lambda: probe(path))
    if info is not None:
        case.step("decode", lambda: _decode(path, info))
    case.step("extract", lambda: _extract(path))
    return info


def _decode(path: Path, info: VideoInfo) -> None:
    """Every GOP, as a job would: what does not decode is that GOP's failure."""
    for spec in split(info, source_uri=str(path), video_id="v", gop=_GOP):
        try:
            gop = decode_gop(path, spec)
        except S2vcError:
            continue
        assert len(gop.pts) + gop.missing == spec.frames
        assert gop.frames.shape == (len(gop.pts), info.height, info.width, 3)


def _extract(path: Path) -> None:
    carried = extract(path)
    for number in range(len(carried.head.attachments)):
        carried.attachment(number)
    for _ in carried.packets():
        pass
