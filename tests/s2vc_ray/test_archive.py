"""The archive container: what goes in comes out, by ranges, and damage is named."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord, write_archive
from s2vc_ray.archive import format as fmt
from s2vc_ray.archive.fields import Fields, put_varint, unzigzag, zigzag
from s2vc_ray.archive.phrases import unfold
from s2vc_ray.errors import CorruptArchive, NotAnArchive, TruncatedArchive, UnsupportedVersion
from s2vc_ray.fixity import crc32c
from s2vc_ray.values import PictureTags
from tests.archives import GOPS, PASSTHROUGH, archive_bytes, header

MIB = 1 << 20


def test_everything_comes_back() -> None:
    out = io.BytesIO()
    index = write_archive(out, header(), iter(GOPS), [PASSTHROUGH])
    reader = ArchiveReader.open(out)
    assert reader.header == header()
    assert reader.index == index
    assert reader.damage == ()
    assert tuple(reader.gops()) == GOPS
    assert b"".join(reader.passthrough()) == PASSTHROUGH
    reader.verify()


def test_an_archive_may_hold_nothing_but_its_header() -> None:
    reader = ArchiveReader(archive_bytes(gops=(), passthrough=()))
    assert len(reader) == 0
    assert list(reader.gops()) == []
    assert list(reader.passthrough()) == []
    assert reader.open_passthrough().read() == b""
    reader.verify()


def test_equal_content_gives_equal_bytes_however_passthrough_is_divided() -> None:
    whole = bytes(range(256)) * 10_000
    pieces = [whole[:1], b"", whole[1 : 3 * MIB // 2], whole[3 * MIB // 2 :]]
    data = archive_bytes(passthrough=[whole])
    assert data == archive_bytes(passthrough=pieces)
    reader = ArchiveReader(data)
    assert [len(chunk) for chunk in reader.passthrough()] == [MIB, MIB, len(whole) - 2 * MIB]
    assert b"".join(reader.passthrough()) == whole
    stream = reader.open_passthrough()
    assert stream.read() == whole
    for at, size in ((MIB - 5, 10), (5, 2 * MIB), (len(whole) - 3, 10)):
        stream.seek(at)
        assert stream.read(size) == whole[at : at + size]


def test_the_writer_holds_one_record_at_a_time() -> None:
    out = io.BytesIO()
    written: list[int] = []

    def gops() -> Iterator[GopRecord]:
        for gop in GOPS:
            written.append(len(out.getvalue()))
            yield gop

    index = write_archive(out, header(), gops(), ())
    assert written == [entry.offset for entry in index.gops]


def test_one_gop_is_read_by_its_range_alone() -> None:
    class Counting(io.BytesIO):
        touched = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.touched += len(data)
            return data

    big = tuple(GopRecord(i, i, 9, (i,), bytes([i]) * 50_000) for i in range(100))
    source = Counting(archive_bytes(gops=big))
    reader = ArchiveReader(source)
    assert source.touched < 5_000
    source.touched = 0
    assert reader.gop(70) == big[70]
    assert source.touched == reader.index.gops[70].length
    entry = reader.index.gops[70]
    assert source.getvalue()[entry.payload_offset :][: entry.payload_bytes] == big[70].payload


def test_positions_outside_are_index_errors() -> None:
    reader = ArchiveReader(archive_bytes())
    for position in (-1, 3):
        with pytest.raises(IndexError):
            reader.gop(position)


def test_a_steady_rate_costs_a_few_bytes_only() -> None:
    steady = GopRecord(0, 0, 0, tuple(range(0, 1000 * 3003, 3003)), b"")
    assert len(fmt.pack_gop(steady)) < 20


def test_the_magic_is_where_the_specification_says() -> None:
    data = archive_bytes()
    assert data[:8] == b"\x89S2VC\r\n\x1a"
    version, reserved, length, crc = struct.unpack_from("<HHII", data, 8)
    assert (version, reserved) == (2, 0)
    stored = data[20 : 20 + length]
    assert crc == crc32c(data[8:16] + stored)
    fields = json.loads(unfold(stored, 65536))
    assert fields["time_base"] == [1, 90000]
    assert fields["width"] == 353
    offset, footer_length, footer_crc, magic = struct.unpack("<QII8s", data[-24:])
    assert magic == b"S2VC-END"
    assert offset + footer_length + 24 == len(data)
    assert footer_crc == crc32c(data[offset : offset + footer_length])
    assert data[offset : offset + 4] == b"s2vI"


def test_a_source_name_need_not_be_utf8() -> None:
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    assert ArchiveReader(archive_bytes(source_name=name)).header.source_name == name


@pytest.mark.parametrize(
    "changes",
    [
        {"model_id": ""},
        {"weights_sha256": "A" * 64},
        {"source_sha256": "b" * 63},
        {"width": 0},
        {"height": 65536},
        {"width": True},
        {"height": 2.0},
        {"q": 64},
        {"rotation": 360},
        {"frames": -1},
        {"gop_length": 0},
        {"time_base": Fraction(0)},
        {"sample_aspect": Fraction(-1, 2)},
        {"average_rate": Fraction(1, 1 << 40)},
        {"source_name": "x" * 5000},
        {"source_pix_fmt": "x" * 5000},
        {"source_bit_depth": 65},
        {"decisions": ("",)},
        {"decisions": ["a list"]},
        {"decisions": ("x",) * 33},
        {"shots": 1},
        {"target": None},
        {"target": "t" * 4097},
        {"policy": 1},
        {"policy": "p" * 4097},
        {"deinterlace": None},
        {"own_size": 1},
        {"refine": 65},
        {"archive_version": 0},
        {"replaces": "ab" * 32},
        {"revision": "ab" * 8},
        {"replaces": "", "revision": "ab" * 8, "archive_version": 2},
        {"revision": "AB" * 8, "replaces": "ab" * 32, "archive_version": 2},
        {"replaces": 7, "archive_version": 2},
        {"durations": [(0, 1)]},
        {"durations": ((0, 0),)},
        {"durations": ((0, 1), (0, 1))},
        {"durations": ((0, 1 << 61),)},
        {"durations": ((0, 1, 2),)},
        {"durations": ([0, 1],)},
        {"durations": tuple((n, 1) for n in range(1025))},
    ],
)
def test_an_implausible_header_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        header(**changes)


@pytest.mark.parametrize(
    "tags",
    [
        {"field_order": "sideways"},
        {"display_matrix": (0,) * 8},
        {"display_matrix": (1 << 31,) * 9},
        {"content_light": (-1, 0)},
        {"content_light": [1, 2]},
        {"mastering_display": (Fraction(-1),) * 10},
        {"mastering_display": (1.5,) * 10},
    ],
)
def test_implausible_tags_are_refused(tags: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"tags.{next(iter(tags))}"):
        header(tags=PictureTags(**tags))


def test_tags_and_decisions_come_back() -> None:
    tags = PictureTags(
        field_order="bt",
        display_matrix=(-65536, 0, 0, 0, 65536, 0, -(1 << 31), (1 << 31) - 1, 1 << 30),
        mastering_display=tuple(Fraction(n, 50000) for n in range(10)),
        content_light=(1000, (1 << 32) - 1),
    )
    full = header(
        tags=tags, decisions=("10-bit samples rounded", "é"), source_codec="hevc", source_bit_depth=10
    )
    assert ArchiveHeader.from_json(full.to_json()) == full
    assert ArchiveReader(archive_bytes(tags=tags)).header.tags == tags


def test_options_are_written_only_where_asked_for() -> None:
    optional = {"shots", "deinterlace", "own_size", "refine", "target", "policy", "durations"}
    assert not optional & set(json.loads(header().to_json()))
    assert ArchiveHeader.from_json(header(target="bpp=0.02").to_json()).target == "bpp=0.02"
    assert ArchiveHeader.from_json(header(policy="{}").to_json()).policy == "{}"
    asked = header(shots=True, deinterlace=True, own_size=True, refine=3)
    assert ArchiveHeader.from_json(asked.to_json()) == asked


def test_durations_come_back_and_as_many_as_may_be_fit() -> None:
    most = (1 << 61) - 1
    full = header(durations=tuple((n - most, most) for n in range(1024)))
    assert ArchiveHeader.from_json(full.to_json()) == full
    assert ArchiveReader(archive_bytes(durations=full.durations)).header == full


def test_versions_are_told_from_the_second_on() -> None:
    assert not {"archive_version", "replaces", "revision"} & set(json.loads(header().to_json()))
    second = header(archive_version=2, replaces="ab" * 32, revision="cd" * 8)
    assert ArchiveHeader.from_json(second.to_json()) == second


def test_what_a_header_may_leave_out_is_unknown() -> None:
    values = json.loads(header().to_json())
    for name in ("tags", "decisions", "source_codec", "source_bit_depth"):
        del values[name]
    assert ArchiveHeader.from_json(json.dumps(values).encode()) == header()
    values["tags"] = {"field_order": "tt"}
    assert ArchiveHeader.from_json(json.dumps(values).encode()) == header(tags=PictureTags("tt"))


def test_an_unknown_rate_and_aspect_are_representable() -> None:
    plain = header(average_rate=None, sample_aspect=Fraction(0))
    assert ArchiveHeader.from_json(plain.to_json()) == plain


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 60_000,
        b'{"width":1,"width":1}',
        b"\xff",
        header().to_json().replace(b'"q":20', b'"q":"20"'),
        header().to_json().replace(b"[1,90000]", b"[1,0]"),
        header().to_json().replace(b"[1,90000]", b"null"),
        header().to_json().replace(b'"matrix":1', b'"matrix":999'),
        header().to_json().replace(b'"matrix":1,', b""),
        header().to_json().replace(b'"q":20', b'"q":NaN'),
        header().to_json().replace(b'"display_matrix":null', b'"display_matrix":1'),
        header().to_json().replace(b'"mastering_display":null', b'"mastering_display":[[1,0]]'),
        header().to_json().replace(b'"mastering_display":null', b'"mastering_display":[null]'),
        header().to_json().replace(b'"content_light":null', b'"content_light":[1,2,3]'),
        header().to_json().replace(b'"field_order":"unknown"', b'"field_order":[]'),
        header().to_json().replace(b'"decisions":[]', b'"decisions":"x"'),
        header().to_json().replace(b'"decisions":[]', b'"decisions":[1]'),
        header(shots=True).to_json().replace(b'"shots":true', b'"shots":"no"'),
        header(durations=((0, 5),)).to_json().replace(b"[[0,5]]", b"[0,5]"),
        header(durations=((0, 5),)).to_json().replace(b"[[0,5]]", b"[[0,5.0]]"),
        header(durations=((0, 5),)).to_json().replace(b"[[0,5]]", b"{}"),
        header().to_json().replace(b'"q":20', b'"q":' + b"9" * 5000),
    ],
)
def test_header_json_that_lies_is_corrupt_even_with_a_right_crc(text: bytes) -> None:
    crc = crc32c(text, crc32c(struct.pack("<HHI", 1, 0, len(text))))
    with pytest.raises(CorruptArchive, match="header at byte 20"):
        ArchiveReader(fmt.PROLOGUE.pack(fmt.MAGIC, 1, 0, len(text), crc) + text)


def test_fields_of_later_versions_are_ignored() -> None:
    text = header().to_json().replace(b'"q":20', b'"q":20,"zebra":[1]')
    assert ArchiveHeader.from_json(text) == header()


@pytest.mark.parametrize(
    "changes",
    [
        {"index": -1},
        {"first_frame": -1},
        {"q": 64},
        {"pts": ()},
        {"pts": (2, 1)},
        {"pts": (1 << 62,)},
        {"pts": (0,) * 65537},
        {"codec": ""},
        {"codec": "é"},
        {"codec": "x" * 33},
        {"codec": "a/b"},
    ],
)
def test_an_implausible_gop_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="GOP"):
        dataclasses.replace(GOPS[0], **changes)


@pytest.mark.parametrize(
    "second",
    [
        GopRecord(0, 40, 0, (10**6,), b""),
        GopRecord(1, 31, 0, (10**6,), b""),
        GopRecord(1, 40, 0, (0,), b""),
        GopRecord(1, 99, 0, (10**6, 10**6 + 1), b""),
    ],
)
def test_the_writer_refuses_gops_out_of_order(second: GopRecord) -> None:
    with pytest.raises(ValueError, match="GOP"):
        archive_bytes(gops=(GOPS[0], second))


def test_other_files_are_no_archives() -> None:
    for data in (b"", b"RIFF", b"\x00" * 100, b"\x89PNG\r\n\x1a\n" + bytes(100), archive_bytes()[1:]):
        with pytest.raises(NotAnArchive):
            ArchiveReader(data)
        with pytest.raises(NotAnArchive):
            ArchiveReader(data, salvage=True)


def test_an_unknown_version_is_named() -> None:
    data = bytearray(archive_bytes())
    data[8] = 3
    with pytest.raises(UnsupportedVersion, match="version 3"):
        ArchiveReader(data)


def test_every_truncation_is_noticed_and_whole_gops_are_salvaged() -> None:
    data = archive_bytes()
    whole = ArchiveReader(data)
    header_end = whole.index.gops[0].offset
    for size in range(1, len(data)):
        with pytest.raises(TruncatedArchive):
            ArchiveReader(data[:size])
        if size < header_end:
            with pytest.raises(TruncatedArchive):
                ArchiveReader(data[:size], salvage=True)
            continue
        reader = ArchiveReader(data[:size], salvage=True)
        expected = [gop for gop, entry in zip(GOPS, whole.index.gops) if entry.offset + entry.length <= size]
        assert list(reader.gops()) == expected
        assert reader.damage
        with pytest.raises(CorruptArchive):
            reader.verify()
        passthrough = PASSTHROUGH if size >= whole.index.end else b""
        assert b"".join(reader.passthrough()) == passthrough


def test_salvaging_a_whole_archive_finds_no_damage() -> None:
    reader = ArchiveReader(archive_bytes(), salvage=True)
    assert reader.damage == ()
    assert reader.index == ArchiveReader(archive_bytes()).index
    reader.verify()


@pytest.mark.parametrize("damage", ["flip", "flip in head", "insert", "delete", "zeros"])
def test_gops_behind_damage_are_salvaged(damage: str) -> None:
    data = archive_bytes()
    entry = ArchiveReader(data).index.gops[1]
    middle = entry.offset + (8 if damage == "flip in head" else entry.length // 2)
    broken = {
        "flip": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
        "flip in head": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
        "insert": data[:middle] + b"s2vG oops" + data[middle:],
        "delete": data[:middle] + data[middle + 3 :],
        "zeros": data[: entry.offset] + bytes(entry.length) + data[entry.offset + entry.length :],
    }[damage]
    reader = ArchiveReader(broken, salvage=True)
    assert list(reader.gops()) == [GOPS[0], GOPS[2]]
    assert b"".join(reader.passthrough()) == PASSTHROUGH
    assert reader.damage[0].startswith(f"bytes {entry.offset}..")


def test_a_flipped_bit_in_a_gop_is_found_when_it_is_read() -> None:
    data = bytearray(archive_bytes())
    entry = ArchiveReader(data).index.gops[1]
    data[entry.payload_offset] ^= 1
    reader = ArchiveReader(data)
    assert reader.gop(0) == GOPS[0]
    with pytest.raises(CorruptArchive, match=f"GOP 1 at byte {entry.offset}: CRC differs"):
        reader.gop(1)
    with pytest.raises(CorruptArchive, match="GOP 1"):
        reader.verify()


def test_a_record_of_another_video_is_refused() -> None:
    mine, other = archive_bytes(), archive_bytes(source_sha256="c" * 64)
    entry = ArchiveReader(mine).index.gops[0]
    spliced = mine[: entry.offset] + other[entry.offset : entry.offset + entry.length]
    spliced += mine[entry.offset + entry.length :]
    with pytest.raises(CorruptArchive, match="GOP 0"):
        ArchiveReader(spliced).gop(0)
    assert [gop.index for gop in ArchiveReader(spliced, salvage=True).gops()] == [1, 3]


def test_an_archive_inside_a_damaged_payload_is_not_salvaged() -> None:
    inner = archive_bytes(source_sha256="c" * 64)
    data = bytearray(archive_bytes(gops=(GopRecord(0, 0, 1, (0,), inner), GOPS[2])))
    data[ArchiveReader(data).index.gops[0].payload_offset - 1] ^= 1
    assert list(ArchiveReader(data, salvage=True).gops()) == [GOPS[2]]


def test_trailing_bytes_are_noticed() -> None:
    with pytest.raises(TruncatedArchive, match="appended"):
        ArchiveReader(archive_bytes() + b"x")
    reader = ArchiveReader(archive_bytes() + b"x", salvage=True)
    assert tuple(reader.gops()) == GOPS
    assert reader.damage


def test_unbuffered_streams_may_read_and_write_less_than_asked() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size if size is None or size < 0 else min(size, 7))

        def write(self, data: Any, /) -> int:
            return super().write(bytes(data[:11]))

    out = Slow()
    write_archive(out, header(), GOPS, [PASSTHROUGH])
    assert out.getvalue() == archive_bytes()
    ArchiveReader(out).verify()


@given(st.integers(0, (1 << 64) - 1))
def test_varints_come_back(value: int) -> None:
    out = bytearray()
    put_varint(out, value)
    fields = Fields(bytes(out), "here")
    assert fields.varint() == value
    assert fields.at == len(out)
    assert zigzag(unzigzag(value)) == value


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01"])
def test_varints_have_one_form(data: bytes) -> None:
    with pytest.raises(CorruptArchive, match="here"):
        Fields(data, "here").varint()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 1 << 40), min_size=1, max_size=40),
    st.integers(-(1 << 60), 1 << 60),
    st.binary(max_size=50),
)
def test_time_stamps_come_back(steps: list[int], first: int, payload: bytes) -> None:
    pts = [first]
    for step in steps:
        pts.append(pts[-1] + step)
    record = GopRecord(7, 9, 63, tuple(pts), payload)
    assert fmt.unpack_gop(fmt.pack_gop(record), "here") == record
