"""Every codec gives back the decoded pictures, their times and their orientation; no output is left half-written."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from s2vc_ray.access import Frame, open_archive
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import DecompressReport
from s2vc_ray.encoders import CODECS, encoder
from s2vc_ray.errors import ConfigError, CorruptArchive, ObjectExists
from s2vc_ray.export import export, stills
from s2vc_ray.moments import FrameNumber
from s2vc_ray.probe import probe
from tests import media
from tests.fakes import load_fake

VFR = [0, 4, 8, 13, 16, 20, 28, 29, 33, 40, 44, 48, 60, 64, 68, 72]
CLOSE = {"h264": 6, "hevc": 8, "av1": 8, "prores": 6, "ffv1": 0}
"""Mean absolute difference that is allowed, of 255."""


def archive_of(clip: Path) -> Path:
    config = JobConfig(
        model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
    )
    assert compress([str(clip)], str(clip.parent / "out"), config, load_codec=load_fake).clean
    return clip.parent / "out" / f"{clip.name}.s2vc"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd size, variable rate, rotated, 4:3 samples, sound."""
    return archive_of(
        media.make_clip(
            tmp_path_factory.mktemp("odd") / "a.mp4",
            size=(65, 49),
            pix_fmt="yuv444p",
            pts=VFR,
            time_base=Fraction(1, 100),
            rotation=90,
            sample_aspect=Fraction(4, 3),
            audio="aac",
        )
    )


def run(archive: Path, out: Path | str, **options: Any) -> DecompressReport:
    return export(str(archive), str(out), **{"model": "fake", "load_codec": load_fake, **options})


def decoded(archive: Path) -> list[Frame]:
    with open_archive(str(archive), model="fake", load_codec=load_fake) as opened:
        return list(opened.frames())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("codec", "suffix"), [(codec, suffix) for codec in CODECS for suffix in CODECS[codec].encoder.containers]
)
def test_odd_sizes_variable_rates_and_rotation_in_every_codec(
    odd: Path, tmp_path: Path, codec: str, suffix: str
) -> None:
    out = tmp_path / f"b{suffix}"
    report = run(odd, out, codec=codec)
    assert (report.frames, report.frames_lost) == (16, 0)
    info = probe(out)
    assert (info.width, info.height, info.rotation) == (65, 49, 90)
    said = not any("nothing in the file says" in note for note in report.notes)
    assert info.sample_aspect in ([Fraction(4, 3)] if said else [0, 1])
    assert said or suffix == ".mkv"
    assert [pts * info.time_base for pts in info.pts] == [Fraction(pts, 100) for pts in VFR]
    pictures = media.all_frames(out)[1]
    for wanted, got in zip(decoded(odd), pictures, strict=True):
        rgb = got.to_ndarray(format="rgb24").astype(int)
        assert np.abs(rgb - wanted.rgb).mean() <= CLOSE[codec]
    with av.open(str(out)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        tag = container.streams.video[0].codec_context.codec_tag
    if suffix != ".mkv":
        assert tag == {"h264": "avc1", "hevc": "hvc1", "av1": "av01", "prores": "ap4h"}[codec]
    assert names(tmp_path) == [out.name]


def test_the_last_picture_of_a_stretch_keeps_its_duration(odd: Path, tmp_path: Path) -> None:
    run(odd, tmp_path / "b.mov", codec="prores", start=Fraction(40, 100), duration=Fraction(10, 100))
    info = probe(tmp_path / "b.mov")
    assert [pts * info.time_base for pts in info.pts] == [0, Fraction(4, 100), Fraction(8, 100)]
    assert info.last_duration * info.time_base == Fraction(12, 100)


def test_ffv1_is_the_decoded_pictures_bit_by_bit(odd: Path, tmp_path: Path) -> None:
    run(odd, tmp_path / "b.mkv", codec="ffv1", passthrough=False)
    frames = media.all_frames(tmp_path / "b.mkv")[1]
    for wanted, got in zip(decoded(odd), frames, strict=True):
        assert np.array_equal(got.to_ndarray(format="rgb24"), wanted.rgb)
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_y4m_is_upright(odd: Path, tmp_path: Path) -> None:
    report = run(odd, tmp_path / "b.y4m")
    assert any("upright" in note for note in report.notes)
    with av.open(str(tmp_path / "b.y4m")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.sample_aspect_ratio) == (49, 65, Fraction(3, 4))
        (first, *rest) = container.decode(video=0)
    assert len(rest) == 15
    rgb = first.to_ndarray(format="rgb24").astype(int)
    assert np.abs(rgb - np.rot90(decoded(odd)[0].rgb)).mean() < 4


def test_frames_are_numbered_upright_and_timed(odd: Path, tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    report = run(odd, shots, codec="frames", start=FrameNumber(3), duration=Fraction(17, 100))
    assert report.frames == 5
    numbers = [3, 4, 5, 6, 7]
    assert names(shots) == [*(f"{number:06}.png" for number in numbers), "timestamps.txt"]
    for number in numbers:
        with Image.open(shots / f"{number:06}.png") as image:
            assert np.array_equal(np.asarray(image), np.rot90(decoded(odd)[number].rgb))
    times = (shots / "timestamps.txt").read_text().splitlines()
    assert times == ["# timestamp format v2", "0", "30", "70", "150", "160"]


def test_frames_beside_other_files(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    run(odd, tmp_path / "a_%03d.jpg", duration=Fraction(1, 25))
    assert names(tmp_path) == ["a_000.jpg", "a_timestamps.txt", "letter.txt"]
    with pytest.raises(ObjectExists, match="exists"):
        run(odd, tmp_path / "a_%03d.jpg", codec="frames")
    run(odd, tmp_path / "a_%03d.jpg", duration=Fraction(8, 100), overwrite=True)
    assert names(tmp_path) == ["a_000.jpg", "a_001.jpg", "a_timestamps.txt", "letter.txt"]


def test_the_container_follows_the_suffix(odd: Path, tmp_path: Path) -> None:
    for name, codec in (("b.mov", "prores"), ("b.mp4", "h264"), ("b.mkv", "h264"), ("b.y4m", "rawvideo")):
        run(odd, tmp_path / name, duration=Fraction(1, 10))
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].codec_context.codec.canonical_name == codec


@pytest.mark.parametrize(
    ("out", "options", "says"),
    [
        ("b.mp4", {"codec": "prores"}, "prores goes into .mov or .mkv, not into .mp4"),
        ("b.mp4", {"codec": "ffv1"}, "ffv1 goes into .mkv"),
        ("b", {"codec": "h264"}, "a name without suffix"),
        ("b.mp4", {"codec": "vp9"}, "use one of h264, hevc, av1, prores, ffv1, y4m, frames"),
        ("b.mkv", {"codec": "y4m"}, ".y4m file, or to -"),
        ("b.mov", {"codec": "prores", "crf": 20}, "leave --crf out"),
        ("b.y4m", {"crf": 20}, "leave --crf and --preset out"),
        ("b.mp4", {"crf": 52}, "takes 0 .best. to 51"),
        ("b.mp4", {"preset": "fastest"}, "h264 takes medium"),
        ("b.mkv", {"codec": "ffv1", "preset": "slow"}, "none at all"),
        ("b.gif", {}, "h264 goes into"),
        ("-", {"codec": "frames"}, "frames are files"),
        ("b.png", {"codec": "frames"}, "b_%06d.png"),
        ("%d_%d.png", {"codec": "frames"}, "once"),
        ("none/b.mp4", {}, "is no folder"),
        ("b.mp4", {"start": Fraction(99)}, "it lasts 0:00:00.7"),
        ("b.mp4", {"duration": Fraction(0)}, "more than 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    odd: Path, tmp_path: Path, out: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        run(odd, out if out == "-" else tmp_path / out, **options)
    assert names(tmp_path) == []


@pytest.mark.parametrize("out", ["b.mp4", "b.y4m", "shots"])
def test_nothing_half_written_stays(odd: Path, tmp_path: Path, out: str) -> None:
    data = bytearray(odd.read_bytes())
    with open_archive(str(odd), model="fake", load_codec=load_fake) as opened:
        data[opened.reader.index.gops[1].payload_offset] ^= 1
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.s2vc").write_bytes(data)
    (tmp_path / "out").mkdir()
    options = {"codec": "frames"} if out == "shots" else {}
    with pytest.raises(CorruptArchive):
        run(tmp_path / "in" / "broken.s2vc", tmp_path / "out" / out, batch=1, **options)
    assert names(tmp_path / "out") == []


def test_existing_outputs_are_kept(odd: Path, tmp_path: Path) -> None:
    loads: list[str] = []

    def load(model: str, device: str) -> Any:
        loads.append(model)
        return load_fake(model, device)

    (tmp_path / "b.mov").write_bytes(b"mine")
    with pytest.raises(ObjectExists, match="--overwrite"):
        run(odd, tmp_path / "b.mov", load_codec=load)
    assert (tmp_path / "b.mov").read_bytes() == b"mine"
    assert loads == [], "refused only after the model was loaded"


def test_settings_reach_the_encoder(odd: Path, tmp_path: Path) -> None:
    sizes = []
    for crf in (10, 45):
        run(odd, tmp_path / f"{crf}.mp4", codec="h264", crf=crf, preset="veryfast", passthrough=False)
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]
    assert dict(encoder("av1").options) == {"crf": "20", "preset": "8"}
    assert dict(encoder("prores", preset="lt").options) == {"profile": "lt"}
    assert all(dict(encoder(name).options) for name in CODECS)


Stills = Callable[..., Any]


def test_a_still_is_the_picture_on_screen(odd: Path, tmp_path: Path) -> None:
    common = {"model": "fake", "load_codec": load_fake}
    (still,) = stills(str(odd), [Fraction(27, 100)], str(tmp_path / "a.png"), **common)
    assert (still.frame, still.seconds) == (5, Fraction(20, 100))
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (still.width, still.height) == (49, 87)
    (still,) = stills(str(odd), [FrameNumber(5)], str(tmp_path / "raw.png"), raw=True, **common)
    with Image.open(tmp_path / "raw.png") as image:
        assert np.array_equal(np.asarray(image), decoded(odd)[5].rgb)
    with pytest.raises(ObjectExists):
        stills(str(odd), [Fraction(0)], str(tmp_path / "a.png"), **common)
    with pytest.raises(ConfigError, match="several names"):
        stills(str(odd), [Fraction(0), Fraction(1, 2)], str(tmp_path / "b.png"), **common)
    several = stills(str(odd), [Fraction(0), Fraction(1, 2)], str(tmp_path / "b_%d.jpg"), **common)
    assert [Path(one.out).name for one in several] == ["b_0.jpg", "b_11.jpg"]
    with pytest.raises(ConfigError, match=r"\.png, \.jpg"):
        stills(str(odd), [Fraction(0)], str(tmp_path / "a.gif"), **common)
    assert names(tmp_path) == ["a.png", "b_0.jpg", "b_11.jpg", "raw.png"]


@pytest.mark.slow
def test_a_still_with_the_real_codec(tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "a.mp4", frames=6, size=(64, 48))
    config = JobConfig(executor="local", device="cpu", gop=3, metrics=MetricPolicy.parse("none"))
    assert compress([str(clip)], str(tmp_path / "out"), config).clean
    archive = str(tmp_path / "out" / "a.mp4.s2vc")
    (still,) = stills(archive, [Fraction(16, 100)], str(tmp_path / "a.png"), device="cpu")
    assert (still.frame, still.width, still.height) == (4, 64, 48)
    with open_archive(archive, device="cpu") as opened:
        wanted = list(opened.frames())[4].rgb
    with Image.open(tmp_path / "a.png") as image:
        got = np.asarray(image)
    assert np.abs(got.astype(int) - wanted).max() <= 1
    source = media.all_frames(clip)[1][4].to_ndarray(format="rgb24")
    assert np.square(got - source.astype(float)).mean() < 1200
