"""An archive comes back as a playable file, or is refused with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import ModelError
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import DecompressReport, Progress, decompress
from s2vc_ray.errors import (
    ArchiveError,
    ConfigError,
    CorruptArchive,
    NotAnArchive,
    ObjectExists,
    ObjectMissing,
    TruncatedArchive,
    UnsupportedVersion,
    WrongWeights,
)
from s2vc_ray.moments import FrameNumber
from s2vc_ray.probe import probe
from tests import media
from tests.fakes import FakeCodec, load_fake


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decompress")
    clip = media.make_clip(folder / "a.mp4", frames=20, size=(66, 50), audio="aac")
    config = JobConfig(
        model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
    )
    assert compress([str(clip)], str(folder / "out"), config, load_codec=load_fake).clean
    return folder / "out" / "a.mp4.s2vc"


def back(archive: Path, out: Path, **options: Any) -> DecompressReport:
    return decompress(str(archive), str(out), **{"model": "fake", "load_codec": load_fake, **options})


def sound(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".y4m"])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_every_frame_comes_back(archive: Path, tmp_path: Path, suffix: str, batch: int) -> None:
    seen: list[Progress] = []
    out = tmp_path / f"a{suffix}"
    report = back(archive, out, batch=batch, watch=seen.append)
    assert (report.frames, report.gops, report.frames_lost) == (20, 3, 0)
    assert [progress.done for progress in seen] == list(range(21))
    assert {(progress.frames, progress.gops) for progress in seen} == {(20, 3)}
    _, frames = media.all_frames(out)
    assert len(frames) == 20
    assert (frames[0].width, frames[0].height) == (66, 50)


def test_gops_side_by_side_fit_the_memory(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    decode = FakeCodec.iter_decode

    def counting(self: FakeCodec, gops: Sequence[EncodedGop]) -> Iterator[dict[int, Any]]:
        groups.append(len(gops))
        return decode(self, gops)

    monkeypatch.setattr(FakeCodec, "iter_decode", counting)
    back(archive, tmp_path / "a.mkv")
    assert groups == [2, 1]
    monkeypatch.setattr("s2vc_ray.access._MEMORY", 2 * 66 * 50 * 600)
    back(archive, tmp_path / "b.mkv")
    assert groups == [2, 1, 1, 1, 1]


def test_pictures_are_those_that_the_codec_decodes(archive: Path, tmp_path: Path) -> None:
    back(archive, tmp_path / "a.mkv")
    source = media.all_frames(archive.parent.parent / "a.mp4")[1]
    decoded = media.all_frames(tmp_path / "a.mkv")[1]
    for one, other in zip(source[::7], decoded[::7], strict=True):
        a, b = (frame.to_ndarray(format="rgb24")[::8, ::8].astype(float) for frame in (one, other))
        assert abs(a - b).mean() < 12


def test_later_weights_that_read_its_streams_decode_it_and_say_so(archive: Path, tmp_path: Path) -> None:
    report = back(archive, tmp_path / "a.mp4", model="fake:later")
    assert any("coded by fake and decoded by fake-later" in note for note in report.notes)
    assert not any("coded by" in note for note in back(archive, tmp_path / "b.mp4").notes)


def test_other_weights_are_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongWeights, match=r"fafafafafafafafa.*ffffffffffffffff.*--model"):
        back(archive, tmp_path / "a.mp4", model="fake:other")
    assert not (tmp_path / "a.mp4").exists()


def test_damage_is_refused_with_its_reason(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    gop = ArchiveReader(data).index.gops[1]
    flipped, version = bytearray(data), bytearray(data)
    flipped[gop.payload_offset] ^= 1
    version[8] = 99
    for name, broken, error in (
        ("cut", data[: len(data) // 2], TruncatedArchive),
        ("flipped", bytes(flipped), CorruptArchive),
        ("version", bytes(version), UnsupportedVersion),
        ("text", b"hello", NotAnArchive),
        ("empty", b"", ArchiveError),
    ):
        path = tmp_path / f"{name}.s2vc"
        path.write_bytes(broken)
        with pytest.raises(error):
            back(path, tmp_path / f"{name}.mp4")
        assert not (tmp_path / f"{name}.mp4").exists()


def test_whole_gops_before_a_truncation_are_salvaged(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    cut = tmp_path / "cut.s2vc"
    cut.write_bytes(data[: ArchiveReader(data).index.gops[2].offset + 5])
    report = back(cut, tmp_path / "a.mp4", salvage=True)
    assert (report.frames, report.gops, report.frames_lost) == (16, 2, 4)
    assert report.notes
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert len(list(container.decode(video=0))) == 16


def test_nothing_to_salvage_is_an_error(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    cut = tmp_path / "cut.s2vc"
    cut.write_bytes(data[: ArchiveReader(data).index.gops[0].offset + 5])
    with pytest.raises(CorruptArchive, match="no whole GOP"):
        back(cut, tmp_path / "a.mp4", salvage=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_stretch_with_its_sound(archive: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"a{suffix}"
    report = back(archive, out, start=Fraction(3, 10), duration=Fraction(1, 4))
    assert (report.frames, report.gops, report.frames_lost) == (7, 2, 0)
    info = probe(out)
    assert [pts * info.time_base for pts in info.pts] == [Fraction(at, 25) for at in range(7)]
    assert info.last_duration * info.time_base == Fraction(1, 25)
    whole, cut = (sound(path) for path in (archive.parent.parent / "a.mp4", out))
    begin, end = Fraction(7, 25), Fraction(14, 25)
    wanted = [(time - begin, data) for time, data in whole if begin <= time < end]
    assert [data for _, data in cut] == [data for _, data in wanted]
    assert max(abs(a - b) for (a, _), (b, _) in zip(cut, wanted, strict=True)) <= Fraction(1, 1000)
    assert any("between packets" in note for note in report.notes)


def test_a_stretch_may_leave_the_sound_unread(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(self: ArchiveReader) -> None:
        raise AssertionError("the carried streams were read")

    monkeypatch.setattr(ArchiveReader, "passthrough", unread)
    monkeypatch.setattr(ArchiveReader, "open_passthrough", unread)
    report = back(archive, tmp_path / "a.mp4", start=FrameNumber(8), passthrough=False)
    assert (report.frames, report.gops, report.notes) == (12, 2, ())


def test_an_existing_output_is_kept_unless_told_otherwise(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    out.write_bytes(b"mine")
    with pytest.raises(ObjectExists):
        back(archive, out)
    assert out.read_bytes() == b"mine"
    back(archive, out, overwrite=True)
    assert len(media.all_frames(out)[1]) == 20


def test_other_refusals(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing):
        back(tmp_path / "gone.s2vc", tmp_path / "a.mp4")
    with pytest.raises(ConfigError):
        back(archive, tmp_path / "a.xyz")
    with pytest.raises(ConfigError, match="batch"):
        back(archive, tmp_path / "a.mp4", batch=-1)
    with pytest.raises(ModelError):
        back(archive, tmp_path / "a.mp4", model="nonsense")
