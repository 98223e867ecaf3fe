"""What an archive carries besides its pictures comes out as files, whole, and nowhere but in the folder named."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from typer.testing import CliRunner

from s2vc_ray.cli import app
from s2vc_ray.errors import ConfigError, ObjectExists, TruncatedArchive
from s2vc_ray.extract import extract_archive, safe_name
from s2vc_ray.passthrough import extract as take
from s2vc_ray.passthrough_format import Passthrough, write_passthrough
from s2vc_ray.passthrough_head import PassAttachment, PassStream
from s2vc_ray.passthrough_packets import DISCARD, KEY, PassPacket
from s2vc_ray.storage import check_key
from tests.archives import archive_bytes
from tests.media import make_clip, rich_clip

TIME = Fraction(1, 90_000)


def archived(path: Path, carried: Passthrough) -> Path:
    path.write_bytes(archive_bytes(passthrough=carried.chunks()))
    return path


def stream(index: int, kind: str, **changes: object) -> PassStream:
    plain = PassStream(index, 0, kind, "", "", TIME, b"\x01\xff", 0, {"title": "a\udcff"}, {}, b"", "")
    return replace(plain, **changes)  # type: ignore[arg-type]


def carrying(path: Path, names: tuple[str, ...] = (), streams: tuple[PassStream, ...] = ()) -> Path:
    """An archive with these attached files, whose bytes are their numbers, and two packets in each of these streams."""
    head = take(make_clip(path.with_suffix(".mkv"), frames=2)).head
    attachments = tuple(PassAttachment(n, {"filename": name}) for n, name in enumerate(names))
    packets = [
        PassPacket(n, flags, pts, 5, 7, side, bytes([n]) * size)
        for flags, pts, side, size in ((KEY, 10, (), 3), (DISCARD, None, (("skip_samples", b"\x09"),), 2))
        for n in range(len(streams))
    ]
    head = replace(head, streams=streams, attachments=attachments)
    return archived(path, write_passthrough(head, packets, [b"%d" % n for n in range(len(names))]))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def packets_of(path: Path, number: int = 0) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as file:
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in file.demux(file.streams[number])
            if packet.size
        ]


def test_attached_files_subtitles_and_sound(tmp_path: Path) -> None:
    source = rich_clip(tmp_path / "rich.mkv")
    report = extract_archive(str(archived(tmp_path / "a.s2vc", take(source))), str(tmp_path / "out"))
    found = contents(tmp_path / "out")
    assert found["2-font.ttf"] == b"\x00\x01not really a font"
    assert found["1-subtitle-subrip.bin"] == b"Bonjour"
    listed = json.loads(found["1-subtitle-subrip.json"])
    assert (listed["stream"], listed["codec"], listed["metadata"]["language"]) == (1, "subrip", "fra")
    (packet,) = listed["packets"]
    assert (packet["pts"], packet["duration"], packet["offset"], packet["size"]) == (100, 300, 0, 7)
    assert packets_of(tmp_path / "out" / "1-subtitle-subrip.mks") == [(0.1, b"Bonjour")]
    assert {file.name for file in report.files} == set(found)
    assert report.notes == ()

    source = make_clip(tmp_path / "sound.mp4", audio="aac")
    report = extract_archive(str(archived(tmp_path / "b.s2vc", take(source))), str(tmp_path / "sound"))
    data = (tmp_path / "sound" / "1-audio-aac.bin").read_bytes()
    listed = json.loads((tmp_path / "sound" / "1-audio-aac.json").read_bytes())
    with av.open(str(source)) as file:
        unit = file.streams[1].time_base
        assert b64decode(listed["extradata"]) == file.streams[1].codec_context.extradata
    cut = [
        (float(one["pts"] * unit), data[one["offset"] : one["offset"] + one["size"]])
        for one in listed["packets"]
    ]
    assert cut == packets_of(source, 1)
    assert [one for _, one in packets_of(tmp_path / "sound" / "1-audio-aac.mka")] == [one for _, one in cut]


def test_a_stream_that_no_container_takes(tmp_path: Path) -> None:
    archive = carrying(
        tmp_path / "a.s2vc", streams=(stream(1, "data"), stream(4, "data", codec="../../evil"))
    )
    report = extract_archive(str(archive), str(tmp_path / "out"))
    found = contents(tmp_path / "out")
    assert sorted(found) == [
        "1-data-unknown.bin",
        "1-data-unknown.json",
        "4-data-______evil.bin",
        "4-data-______evil.json",
    ]
    assert found["4-data-______evil.bin"] == b"\x01" * 5
    listed = json.loads(found["1-data-unknown.json"])
    assert (listed["time_base"], b64decode(listed["extradata"])) == ([1, 90_000], b"\x01\xff")
    first, second = listed["packets"]
    assert first == {"pts": 10, "dts": 5, "duration": 7, "offset": 0, "size": 3, "flags": ["key"]}
    assert (second["pts"], second["offset"], second["flags"]) == (None, 3, ["discard"])
    assert second["side_data"] == [{"type": "skip_samples", "data": "CQ=="}]
    assert len(report.notes) == 2
    assert "data 1 has no file to play" in report.notes[0]


def test_more_streams_than_files_are_held_open(tmp_path: Path) -> None:
    archive = carrying(tmp_path / "a.s2vc", streams=tuple(stream(n, "data") for n in range(40)))
    extract_archive(str(archive), str(tmp_path / "out"))
    found = contents(tmp_path / "out")
    assert [found[f"{n}-data-unknown.bin"] for n in range(40)] == [bytes([n]) * 5 for n in range(40)]


def test_names_are_never_paths(tmp_path: Path) -> None:
    names = (
        "../../up.ttf",
        "/etc/passwd",
        "C:\\boot.ini",
        ".profile",
        "",
        "..",
        "ü" * 300 + ".otf",
        "a\0b\n‮c",
        "\udcff",
    )
    archive = carrying(tmp_path / "a.s2vc", (*names, "x.s2vc-tmp"))
    before = set(tmp_path.rglob("*"))
    extract_archive(str(archive), str(tmp_path / "out"))
    assert set(tmp_path.rglob("*")) - before - {tmp_path / "out"} == set((tmp_path / "out").iterdir())
    found = contents(tmp_path / "out")
    assert sorted(found.values()) == sorted(b"%d" % n for n in range(len(names) + 1))
    assert "1-_etc_passwd" in found
    assert all(name.isprintable() for name in found)
    assert any(name.endswith(".otf") for name in found)


def test_what_an_archive_says_does_not_steer_a_terminal(tmp_path: Path) -> None:
    archive = str(carrying(tmp_path / "a.s2vc", ("\x1b[2J",), (stream(3, "data", codec="\x1b[2J"),)))
    report = extract_archive(archive, str(tmp_path / "out"))
    assert all((file.name + file.what).isprintable() for file in report.files)
    assert all(note.isprintable() for note in report.notes)
    with pytest.raises(ConfigError) as error:
        extract_archive(archive, str(tmp_path / "out"), streams=[9])
    assert "\x1b" not in str(error.value)


@given(st.text(max_size=300))
def test_any_name_is_safe(text: str) -> None:
    name = safe_name(f"7-{text}")
    assert check_key(name) == name
    assert "/" not in name
    assert name.startswith("7")
    assert len(name.encode()) <= 130


def test_nothing_is_overwritten_and_nothing_else_written(tmp_path: Path) -> None:
    archive = carrying(tmp_path / "a.s2vc", ("a.ttf",), (stream(3, "data"),))
    out = tmp_path / "out"
    out.mkdir()
    (out / "3-data-unknown.json").write_text("mine")
    with pytest.raises(ObjectExists, match=r"3-data-unknown\.json exists"):
        extract_archive(str(archive), str(out))
    assert contents(out) == {"3-data-unknown.json": b"mine"}


def test_some_of_it(tmp_path: Path) -> None:
    archive = str(carrying(tmp_path / "a.s2vc", ("a.ttf", "b.ttf"), (stream(3, "data"), stream(5, "data"))))
    extract_archive(archive, str(tmp_path / "files"), attachments=True)
    assert set(contents(tmp_path / "files")) == {"0-a.ttf", "1-b.ttf"}
    extract_archive(archive, str(tmp_path / "picked"), streams=[5, 1])
    assert set(contents(tmp_path / "picked")) == {"1-b.ttf", "5-data-unknown.bin", "5-data-unknown.json"}
    with pytest.raises(
        ConfigError,
        match=r"does not carry stream 9 \(there is none\); it carries 0 \(attached file a.ttf\), .*5 \(data\)",
    ):
        extract_archive(archive, str(tmp_path / "none"), streams=[9])
    assert not (tmp_path / "none").exists()


def test_an_archive_without_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "a.s2vc"
    path.write_bytes(archive_bytes(passthrough=()))
    report = extract_archive(str(path), str(tmp_path / "out"))
    assert (report.files, report.notes) == ((), ("it carries nothing besides its pictures",))
    with pytest.raises(ConfigError, match="carries no stream"):
        extract_archive(str(path), str(tmp_path / "out"), streams=[1])


def test_a_cut_archive_gives_what_is_whole(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "sound.mp4", audio="pcm_s16le", container_options={"brand": "qt  "}, frames=200
    )
    whole = archived(tmp_path / "a.s2vc", take(source)).read_bytes()
    cut = tmp_path / "cut.s2vc"
    cut.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(TruncatedArchive):
        extract_archive(str(cut), str(tmp_path / "out"))
    report = extract_archive(str(cut), str(tmp_path / "out"), salvage=True)
    (data,) = (tmp_path / "out").glob("*.bin")
    assert len(whole) // 3 < data.stat().st_size < len(whole)
    assert report.notes


def test_from_s3_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    archive = carrying(tmp_path / "a.s2vc", ("a.ttf",), (stream(3, "data"),))
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="films")
        client.upload_file(str(archive), "films", "a.s2vc")
        arguments = ["extract", "s3://films/a.s2vc", str(tmp_path / "out"), "--stream", "3", "--json"]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert [file["index"] for file in json.loads(result.stdout)["files"]] == [3, 3]
    assert set(contents(tmp_path / "out")) == {"3-data-unknown.bin", "3-data-unknown.json"}
