"""Jobs that fall back: from the target to archive and manifest, and back through every command that decodes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from s2vc_ray.access import open_archive
from s2vc_ray.archive import ArchiveReader, write_archive
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import decompress
from s2vc_ray.export import export, stills
from s2vc_ray.fallback import encode_av1, iter_decode_av1
from s2vc_ray.gop_decoder import coded_gop
from s2vc_ray.manifest import read_manifest
from s2vc_ray.targets import Floor
from s2vc_ray.verify import verify
from s2vc_ray.verify_archive import VerifyOptions
from tests.fakes import STEP, load_fake
from tests.media import make_clip, pictures

SIZE = (66, 50)
GOP = 5
PSNR = 30.0
MOST = 255**2 / 10 ** (PSNR / 10)


def config(floor: float = PSNR, **changes: Any) -> JobConfig:
    fields: dict[str, Any] = {
        "model": "fake",
        "executor": "local",
        "device": "cpu",
        "gop": GOP,
        "metrics": MetricPolicy.parse("full", ("psnr",)),
        "target": Floor("psnr", floor),
    }
    return JobConfig(**{**fields, **changes})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three GOPs: of blocks, which the fake codec keeps; of gradients, which it does not; of blocks again."""
    width, height = SIZE
    small = np.random.default_rng(1).integers(
        60, 190, (11, -(-height // STEP), -(-width // STEP), 1), np.uint8
    )
    blocks = small.repeat(3, axis=3).repeat(STEP, axis=1).repeat(STEP, axis=2)[:, :height, :width]
    rgb = np.concatenate([blocks[:GOP], pictures(GOP, width, height), blocks[GOP:]])
    return make_clip(
        tmp_path_factory.mktemp("clip") / "a.mkv", codec="ffv1", pix_fmt="bgr0", size=SIZE, rgb=rgb, frames=16
    )


@pytest.fixture(scope="module")
def job(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("job")
    report = compress([str(clip)], str(out), config(), load_codec=load_fake)
    assert report.clean
    return out


def source(clip: Path) -> npt.NDArray[np.uint8]:
    with av.open(str(clip)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def errors(got: npt.NDArray[np.uint8], want: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Mean squared error of each frame."""
    found: npt.NDArray[np.float64] = ((got.astype(float) - want) ** 2).mean(axis=(1, 2, 3))
    return found


def records(folder: Path) -> list[tuple[str, int, bytes]]:
    reader = ArchiveReader((folder / "a.mkv.s2vc").read_bytes())
    return [(record.codec, record.q, record.payload) for record in reader.gops()]


def test_only_the_gop_that_misses_its_floor_is_av1(job: Path) -> None:
    assert [codec for codec, _, _ in records(job)] == ["s2vc", "av1", "s2vc", "s2vc"]
    rows = read_manifest(str(job)).to_pylist()
    assert [row["codec"] for row in rows] == ["s2vc", "av1", "s2vc", "s2vc"]
    assert all(row["psnr_worst"] >= PSNR and row["target_met"] and row["verify"] == "decoded" for row in rows)
    fell = rows[1]
    assert (fell["q"], fell["crf"]) == (None, records(job)[1][1])
    assert fell["bits_i"] + fell["bits_p"] == 8 * fell["payload_bytes"]
    assert all(row["crf"] is None for row in rows if row is not fell)


def test_the_next_crf_would_miss(clip: Path, job: Path) -> None:
    frames, crf = source(clip)[GOP : 2 * GOP], records(job)[1][1]
    decoded = np.stack(list(iter_decode_av1(encode_av1(frames, crf + 1))))
    assert errors(decoded, frames).max() > MOST


def test_bytes_depend_neither_on_the_batch_nor_on_the_run(clip: Path, job: Path, tmp_path: Path) -> None:
    for name, batch in (("one", 1), ("all", 4)):
        compress([str(clip)], str(tmp_path / name), config(batch=batch), load_codec=load_fake)
        assert records(tmp_path / name) == records(job)


def test_fallbacks_can_be_refused(clip: Path, tmp_path: Path) -> None:
    compress([str(clip)], str(tmp_path), config(fallback="none"), load_codec=load_fake)
    assert {codec for codec, _, _ in records(tmp_path)} == {"s2vc"}
    met = [row["target_met"] for row in read_manifest(str(tmp_path)).to_pylist()]
    assert met == [True, False, True, True]


def test_smaller_takes_av1_where_it_needs_fewer_bytes(clip: Path, job: Path, tmp_path: Path) -> None:
    compress([str(clip)], str(tmp_path), config(fallback="smaller"), load_codec=load_fake)
    before, after = records(job), records(tmp_path)
    assert sum(len(payload) for *_, payload in after) <= sum(len(payload) for *_, payload in before)
    for old, new in zip(before, after, strict=True):
        assert new == old or (new[0] == "av1" and len(new[2]) < len(old[2]))


def test_pictures_come_back_in_order_whatever_their_codec(clip: Path, job: Path) -> None:
    want = source(clip)
    for batch in (1, 4):
        with open_archive(
            str(job / "a.mkv.s2vc"), model="fake", batch=batch, load_codec=load_fake
        ) as archive:
            got = np.stack([frame.rgb for frame in archive.frames()])
        assert got.shape == want.shape
        assert (errors(got, want) <= MOST).all()


def test_a_stretch_within_a_fallback_gop(clip: Path, job: Path) -> None:
    with open_archive(str(job / "a.mkv.s2vc"), model="fake", load_codec=load_fake) as archive:
        whole = [frame.rgb for frame in archive.frames()]
        part = list(archive.frames(0.24, 0.36))
    assert [frame.number for frame in part] == [6, 7, 8]
    assert all((frame.rgb == whole[frame.number]).all() for frame in part)


def test_decompress_export_and_frame(job: Path, tmp_path: Path) -> None:
    archive = str(job / "a.mkv.s2vc")
    report = decompress(archive, str(tmp_path / "a.mkv"), model="fake", load_codec=load_fake)
    assert (report.frames, report.gops, report.frames_lost) == (16, 4, 0)
    assert (
        export(archive, str(tmp_path / "x.mkv"), codec="ffv1", model="fake", load_codec=load_fake).frames
        == 16
    )
    (still,) = stills(archive, [0.28], str(tmp_path / "s.png"), model="fake", load_codec=load_fake)
    assert still.frame == 7


@pytest.mark.parametrize("depth", ["bytes", "symbols", "pixels"])
def test_verify_at_every_depth(job: Path, depth: str) -> None:
    (report,) = verify(
        [str(job)], VerifyOptions(depth=depth, model="fake", events=False), load_codec=load_fake
    )
    assert report.clean, report
    assert report.gops == (0 if depth == "bytes" else 4)


def test_verify_sees_planes_that_are_not_those_coded(job: Path, tmp_path: Path) -> None:
    """A forged archive whose every CRC is right: the fallback GOP holds the stream of other pictures."""
    reader = ArchiveReader((job / "a.mkv.s2vc").read_bytes())
    gops = list(reader.gops())
    gop = coded_gop(gops[1], reader.header)
    assert isinstance(gop, Av1Gop)
    other = encode_av1(pictures(GOP, *SIZE, seed=9), gop.q)
    gops[1] = replace(gops[1], payload=replace(gop, units=other.units).to_payload())
    out = io.BytesIO()
    write_archive(out, reader.header, gops, reader.passthrough())
    (tmp_path / "a.mkv.s2vc").write_bytes(out.getvalue())
    options = VerifyOptions(depth="symbols", model="fake", events=False)
    (report,) = verify([str(tmp_path / "a.mkv.s2vc")], options, load_codec=load_fake)
    (verdict,) = report.problems
    assert verdict.outcome == "symbols"
    assert verdict.faults == ("GOP 1: AV1 frame 0 of 5 decodes to other planes than were coded",)
