"""One damaged or forged archive, through everything that reads archives."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from s2vc_model.errors import ModelError
from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.encoders import encoder
from s2vc_ray.errors import S2vcError
from s2vc_ray.fallback import check_av1
from s2vc_ray.gop_decoder import AV1, check_symbols, coded_gop
from s2vc_ray.lanes import LoadedCodec
from s2vc_ray.mux import VideoHeader, write_video
from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.values import ColourTags
from s2vc_ray.verify_structure import examine
from tests.fuzz.case import Case
from tests.fuzz.damage import damage
from tests.fuzz.forge import forged, most_frames
from tests.fuzz.memory import python_peak, resident_peak

_HEADER = VideoHeader(16, 16, Fraction(1, 25), 0, Fraction(1), ColourTags(), Fraction(25), 1)
_PICTURES = list(enumerate(np.zeros((3, 16, 16, 3), np.uint8)))
_FAST = encoder("h264", preset="ultrafast")
_TIME_STAMP = 64
"""Bytes that a frame's time stamp may take in a record being read: a GOP may name 65,536 frames in ten bytes."""
_SLACK = (1 << 20) + (1 << 18)
"""What reading passthrough data ahead takes, and what the originals differ in."""
_NATIVE_SLACK = 96 << 20
"""What FFmpeg, torch and the heap keep or take anew by themselves, as measured on archives that are whole."""


class Bounded(io.BytesIO):
    """An archive's bytes that tell when somebody asks for more than there are."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bytes = len(data)
        self.asked: list[str] = []

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or (size > max(self.bytes, 1 << 20)):
            self.asked.append(f"read of {size} bytes at {self.tell()} of {self.bytes}")
        return super().read(size)


@dataclass
class ArchiveCases:
    """Makes and judges cases of ``originals``, whole archives by name.

    Attributes:
        codec: decodes symbols, of every ``deep``-th case; None: of none.
        scratch: an empty folder in which carried streams of every ``deep``-th case are written.
    """

    originals: dict[str, bytes]
    scratch: Path
    codec: LoadedCodec | None = None
    deep: int = 20
    _needs: dict[str, int] = field(default_factory=dict)

    def run(self, number: int, seed: int) -> Case:
        """The case of this number."""
        rng = random.Random(f"archive {seed} {number}")
        name = rng.choice(sorted(self.originals))
        original = self.originals[name]
        blind = rng.random() < 0.4
        how, data = ("damage", damage(original, rng)) if blind else forged(original, rng)
        case = Case(number, how, name)
        most = 2 * (self._need(name) + _TIME_STAMP * most_frames(data)) + 8 * len(data) + _SLACK
        with python_peak() as peak:
            found = _read(data, case)
        if blind and found is not None and found != _content(original):
            case.violations.append("damage went unnoticed: what was read is not what was written")
        if peak.bytes > most:
            case.violations.append(f"{peak.bytes} bytes of memory for {len(data)} bytes; {most} are plenty")
        self._planes(data, case)
        if number % self.deep == 0:
            self._deeper(data, case)
        return case

    def _planes(self, data: bytes, case: Case) -> None:
        """Decode GOPs of the fallback codec, which needs no model."""
        try:
            reader = ArchiveReader(data)
            records = [record for record in reader.gops() if record.codec == AV1]
        except S2vcError:
            return
        with resident_peak() as peak:
            for record in records:
                case.step("planes", lambda record=record: _check_planes(record, reader.header))  # type: ignore[misc]
        if peak.bytes > _NATIVE_SLACK:
            case.violations.append(f"{peak.bytes >> 20} MiB resident for the planes of {len(data)} bytes")

    def _need(self, name: str) -> int:
        """What reading the whole original takes."""
        if name not in self._needs:
            with python_peak() as peak:
                _read(self.originals[name], Case(0, "", name))
            self._needs[name] = peak.bytes
        return self._needs[name]

    def _deeper(self, data: bytes, case: Case) -> None:
        try:
            reader = ArchiveReader(data)
            records = list(reader.gops())
        except S2vcError:
            return
        with resident_peak() as peak:
            if reader.index.passthrough_bytes:
                case.step("remux", lambda: self._remux(reader, case))
            if self.codec is not None:
                case.step("symbols", lambda: self._symbols(records, reader.header))
        # Of each 64 x 64 pixels that the header claims a decoder holds the table rows of 32 symbols.
        if peak.bytes > _NATIVE_SLACK + reader.header.width * reader.header.height // 16:
            case.violations.append(f"{peak.bytes >> 20} MiB resident for {len(data)} bytes")

    def _remux(self, reader: ArchiveReader, case: Case) -> None:
        out = self.scratch / "out.mkv"
        try:
            carried = Passthrough.from_chunks(reader.passthrough())
            write_video(out, _PICTURES, _HEADER, carried, encoder=_FAST, overwrite=True)
        finally:
            for place in (self.scratch, self.scratch.parent):
                strange = sorted({entry.name for entry in os.scandir(place)} - {"out.mkv", self.scratch.name})
                case.violations.extend(f"wrote {one}" for one in strange)
            out.unlink(missing_ok=True)

    def _symbols(self, records: Sequence[GopRecord], header: ArchiveHeader) -> None:
        assert self.codec is not None
        for record in records:
            check_symbols(self.codec, [coded_gop(record, header)])


_Content = tuple[ArchiveHeader, tuple[GopRecord, ...], bytes]


def _content(data: bytes) -> _Content:
    reader = ArchiveReader(data)
    return reader.header, tuple(reader.gops()), b"".join(reader.passthrough())


def _read(data: bytes, case: Case) -> _Content | None:
    """All that can be read strictly; None when something is refused. Reads in every other way too."""
    stream = Bounded(data)
    content = case.step("reader", lambda: _strict(stream))
    case.step("salvage", lambda: _salvage(Bounded(data)))
    case.step("verify", lambda: _examined(data))
    case.step("payloads", lambda: _payloads(data))
    for salvage in (False, True):
        case.step("passthrough", lambda salvage=salvage: _carried(data, salvage))  # type: ignore[misc]
    case.violations.extend(stream.asked)
    return content


def _check_planes(record: GopRecord, header: ArchiveHeader) -> None:
    gop = coded_gop(record, header)
    assert isinstance(gop, Av1Gop)
    check_av1(gop)


def _strict(stream: Bounded) -> _Content:
    reader = ArchiveReader(stream)
    content = reader.header, tuple(reader.gops()), b"".join(reader.passthrough())
    reader.verify()
    return content


def _salvage(stream: Bounded) -> None:
    reader = ArchiveReader(stream, salvage=True)
    for _ in reader.gops():
        pass
    for _ in reader.passthrough():
        pass


def _examined(data: bytes) -> None:
    structure = examine(io.BytesIO(data))
    if structure.faults:
        raise Refused(structure.faults[0])


def _payloads(data: bytes) -> None:
    reader = ArchiveReader(data, salvage=True)
    for record in reader.gops():
        try:
            coded_gop(record, reader.header)
        except (S2vcError, ModelError):
            continue


def _carried(data: bytes, salvage: bool) -> None:
    reader = ArchiveReader(data, salvage=salvage)
    if not reader.index.passthrough_bytes:
        return
    carried = Passthrough.read(reader.open_passthrough(), salvage=salvage)
    for number in range(len(carried.head.attachments)):
        carried.attachment(number)
    for _ in carried.packets():
        pass


class Refused(S2vcError):
    """A verdict that is told and not raised."""
