"""Archives come from anywhere: whatever a passthrough says, a clear error or a file with all its pictures follows."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import shutil
import struct
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vc_ray.encoders import encoder
from s2vc_ray.errors import ArchiveError, StorageError
from s2vc_ray.extract import extract_archive
from s2vc_ray.mux import VideoHeader, write_video
from s2vc_ray.passthrough import Passthrough, extract
from s2vc_ray.passthrough_format import write_passthrough
from s2vc_ray.passthrough_head import head_to_json
from s2vc_ray.passthrough_packets import PassPacket
from s2vc_ray.values import ColourTags
from tests.archives import archive_bytes
from tests.matrix.assemble import Track, assemble, lines, sound

HEADER = VideoHeader(16, 16, Fraction(1, 25), 0, Fraction(1), ColourTags(), Fraction(25), 1)
PICTURES = list(enumerate(np.zeros((3, 16, 16, 3), np.uint8)))
FAST = encoder("h264", preset="ultrafast")
ROUNDS = 40
NUMBERS = (0, 1, -1, (1 << 31) - 1, 1 << 31, 1 << 62, -(1 << 62), (1 << 63) - 1, -(1 << 63))
TEXTS = ("", "nut", "mov", "audio", "video", "data", "subtitle", "A" * 40)


def write(out: Path, carried: Passthrough) -> int:
    return write_video(out, PICTURES, HEADER, carried, encoder=FAST, overwrite=True).frames


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("originals")
    text = Track(codec="mov_text", packets=[(0, 100, b"\0\1x")], metadata={"language": "fra"})
    chapters = [{"start": 0, "end": 500, "metadata": {"title": "One"}}]
    data = [(n * 50, 0, bytes([n] * 20)) for n in range(4)]
    sources = [
        assemble(
            folder / "a.mp4",
            [Track(sound(folder / "s.mp4")), text],
            video_metadata={"timecode": "01:00:00:00"},
        ),
        assemble(folder / "b.mkv", [Track(lines(folder / "l.vtt"))], chapters=chapters),
        assemble(folder / "c.mkv", [Track(sound(folder / "s.mka", "libopus"))]),
        assemble(folder / "d.ts", [Track(codec="klv", packets=data), Track(codec="timed_id3", packets=data)]),
    ]
    return [extract(source).to_bytes() for source in sources]


def forged(data: bytes, rng: random.Random) -> bytes:
    """``data`` with other contents and right checksums."""
    true = Passthrough.from_bytes(data)
    head = json.loads(head_to_json(true.head))
    kind = rng.choice(["bytes", "packets", "templates", "values"])
    if kind == "packets":
        data = write_passthrough(true.head, _packets(list(true.packets()), rng)).to_bytes()
    (length,) = struct.unpack_from("<I", data, 5)
    rest = bytearray(data[13 + length :])
    if kind == "bytes":
        _bytes(rest, rng)
    elif kind == "templates":
        _templates(head, rng)
    elif kind == "values":
        _values(head, rng)
    text = json.dumps(head).encode()
    return struct.pack("<4sBII", b"S2PT", 1, len(text), zlib.crc32(text)) + text + bytes(rest)


def _bytes(rest: bytearray, rng: random.Random) -> None:
    """Flip bits of the first run, whose checksum stays right."""
    size, _ = struct.unpack_from("<II", rest)
    for _ in range(rng.randrange(1, 12)):
        rest[8 + rng.randrange(size)] ^= 1 << rng.randrange(8)
    struct.pack_into("<I", rest, 4, zlib.crc32(rest[8 : 8 + size]))


def _packets(packets: list[PassPacket], rng: random.Random) -> list[PassPacket]:
    """Impossible times, and side data of noise."""
    found = []
    for packet in packets:
        if rng.random() < 0.3:
            pts, dts, duration = rng.choices(NUMBERS, k=3)
            packet = replace(packet, pts=pts, dts=dts, duration=duration)
        found.append(
            replace(packet, side=tuple((name, rng.randbytes(len(data))) for name, data in packet.side))
        )
    return found


def _templates(head: Any, rng: random.Random) -> None:
    for stream in head["streams"]:
        template = bytearray(base64.b64decode(stream["template"]))
        for _ in range(rng.randrange(1, 20)):
            template[rng.randrange(len(template))] = rng.randrange(256)
        stream["template"] = base64.b64encode(template).decode()


def _values(head: Any, rng: random.Random) -> None:
    for one in head["streams"] + head["chapters"]:
        key = rng.choice(list(one))
        if isinstance(one[key], int):
            one[key] = rng.choice(NUMBERS)
        elif isinstance(one[key], list):
            one[key] = [rng.choice([1, 1001, (1 << 31) - 1]), rng.choice([1, 90000, (1 << 31) - 1])]
        elif isinstance(one[key], dict):
            one[key] = {name: rng.choice(TEXTS) for name in one[key]}
        else:
            one[key] = rng.choice(TEXTS)


def test_forged_bytes_are_extracted_or_refused(originals: list[bytes], tmp_path: Path) -> None:
    rng = random.Random("extract")
    archive, written = tmp_path / "a.s2vc", 0
    for number in range(2 * ROUNDS):
        data, out = forged(rng.choice(originals), rng), tmp_path / str(number)
        archive.write_bytes(archive_bytes(passthrough=[data]))
        with contextlib.suppress(ArchiveError, StorageError):
            written += len(extract_archive(str(archive), str(out)).files)
        shutil.rmtree(out, ignore_errors=True)
        assert list(tmp_path.iterdir()) == [archive]
    assert written > 2 * ROUNDS


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_forged_bytes_never_crash_and_never_cost_a_picture(
    originals: list[bytes], tmp_path: Path, suffix: str
) -> None:
    rng = random.Random(suffix)
    written = 0
    for _ in range(ROUNDS):
        try:
            carried = Passthrough.from_bytes(forged(rng.choice(originals), rng))
            assert write(tmp_path / f"out{suffix}", carried) == len(PICTURES)
            written += 1
        except (ArchiveError, StorageError):
            assert not list(tmp_path.glob(".*"))
    assert written > ROUNDS // 2


@pytest.mark.parametrize("unit", [Fraction(1001, 30000), Fraction(1, 90000), Fraction(2, 25)])
def test_mp4_takes_any_clock(originals: list[bytes], tmp_path: Path, unit: Fraction) -> None:
    """FFmpeg's MP4 muxer ends the process when a subtitle's unit is no whole part of a second."""
    true = Passthrough.from_bytes(originals[0])
    text = next(stream for stream in true.head.streams if stream.kind == "subtitle")
    packets = [PassPacket(0, 1, 7 * n, 7 * n, 7, (), b"\0\1x") for n in range(3)]
    head = replace(true.head, streams=(replace(text, time_base=unit),))
    write(tmp_path / "out.mp4", write_passthrough(head, packets))
    got = extract(tmp_path / "out.mp4")
    (number,) = [n for n, one in enumerate(got.head.streams) if one.kind == "subtitle"]
    times = [one.pts or 0 for one in got.packets() if one.stream == number and one.data == b"\0\1x"]
    assert [time * got.head.streams[number].time_base for time in times] == [7 * n * unit for n in range(3)]
