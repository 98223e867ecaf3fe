"""Jobs with scene cuts within GOPs, and with deinterlacing: everything that reads such GOPs stays right."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vc_ray.access import open_archive
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.commit import adopt, commit_video
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import CorruptArchive
from s2vc_ray.executor import CodecIdentity, GopBatch, GopTask
from s2vc_ray.framemd5 import read_frame_list
from s2vc_ray.frames import decode_gop
from s2vc_ray.manifest import read_manifest
from s2vc_ray.moments import FrameNumber
from s2vc_ray.plan import PlannedVideo, PublishedVideo, VideoFailure, plan_video
from s2vc_ray.rows import JobContext
from s2vc_ray.shots import ShotsGop
from s2vc_ray.sources import Source
from s2vc_ray.staging import StagedGop, pack_staged, unpack_staged
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.verify import verify
from s2vc_ray.verify_archive import VerifyOptions
from s2vc_ray.worker import Worker
from tests import media
from tests.fakes import load_fake
from tests.s2vc_ray.test_deinterlace import woven

SCENES = (9, 20, 6, 5)
GOPS = [16, 16, 8]
SHOTS = [[9, 7], [13, 3], [3, 5]]
"""What of ``SCENES`` lies in each GOP of 16 frames."""

CUTS = JobConfig(
    model="fake",
    executor="local",
    allow_larger=True,
    gop=16,
    metrics=MetricPolicy.parse("sample:2", ("psnr",)),
)
FIELDS = replace(CUTS, scene_cuts=False, gop=8, deinterlace=True)
CODEC = CodecIdentity("fake", "fa" * 32, "fake", "cpu", "")
WHEN = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``cuts.mp4`` has four scenes, ``fields.mkv`` 17 interlaced pictures."""
    folder = tmp_path_factory.mktemp("in")
    media.make_clip(folder / "cuts.mp4", rgb=media.scenes(SCENES), b_frames=2)
    media.make_clip(
        folder / "fields.mkv",
        rgb=woven(17, top_first=False),
        options={"x264-params": "crf=4:bff=1"},
        fields="bff",
    )
    return folder


def run(clips: Path, name: str, out: Path, config: JobConfig) -> None:
    report = compress([str(clips / name)], str(out), config, load_codec=load_fake)
    assert report.clean, report.videos


def rows_of(out: Path) -> list[dict[str, Any]]:
    return sorted(read_manifest(str(out)).to_pylist(), key=lambda row: row["gop_index"])


def planned(clips: Path, out: Path, config: JobConfig = CUTS) -> Any:
    source = Source(str(clips / "cuts.mp4"), "cuts.mp4")
    return plan_video(source, open_storage(str(out)), config, CODEC.weights_sha256)


def stage(video: PlannedVideo, storage: Storage) -> list[StagedGop]:
    worker = Worker(storage.uri, CUTS, load_codec=load_fake)
    outcomes = worker.encode(GopBatch(tuple(GopTask(spec, video.staging) for spec in video.specs))).outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, StagedGop)]


@pytest.fixture(scope="module")
def made(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A destination with the archive of ``cuts.mp4``."""
    out = tmp_path_factory.mktemp("made") / "out"
    run(clips, "cuts.mp4", out, CUTS)
    return out


def test_gops_are_coded_shot_by_shot(made: Path) -> None:
    with (made / "cuts.mp4.s2vc").open("rb") as file:
        reader = ArchiveReader(file)
        entries = reader.index.gops
        assert (reader.header.shots, reader.header.gop_length) == (True, 16)
        records = [reader.gop(at) for at in range(len(entries))]
    assert [entry.frames for entry in entries] == GOPS
    assert [entry.first_frame for entry in entries] == [0, *accumulate(GOPS[:-1])]
    rows = rows_of(made)
    assert [(row["frames_expected"], row["frames_encoded"]) for row in rows] == [(n, n) for n in GOPS]
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["codec"] for row in rows} == {record.codec for record in records} == {"s2vc-shots"}
    shots = [[shot.frames for shot in ShotsGop.from_payload(one.payload).shots] for one in records]
    assert shots == SHOTS
    assert [row["bits_i"] + row["bits_p"] for row in rows] == [8 * row["payload_bytes"] for row in rows]


def test_a_gop_without_a_cut_is_coded_as_ever(clips: Path, made: Path, tmp_path: Path) -> None:
    run(clips, "cuts.mp4", tmp_path, replace(CUTS, scene_cuts=False))
    rows = rows_of(tmp_path)
    assert {row["codec"] for row in rows} == {"s2vc"}
    assert [row["frames_encoded"] for row in rows] == GOPS
    media.make_clip(clips / "calm.mp4", frames=20)
    run(clips, "calm.mp4", tmp_path / "calm", CUTS)
    assert {row["codec"] for row in rows_of(tmp_path / "calm")} == {"s2vc"}


def test_any_frame_is_found_by_its_number_and_only_its_gop_is_decoded(made: Path) -> None:
    firsts = [0, *accumulate(GOPS)]
    with open_archive(str(made / "cuts.mp4.s2vc"), load_codec=load_fake, model="fake") as archive:
        whole = [frame.rgb for frame in archive.frames()]
        assert len(whole) == sum(GOPS)
        for number in range(sum(GOPS) - 1):
            stretch = archive.stretch(FrameNumber(number), FrameNumber(number + 1))
            (frame,) = archive.decode(stretch)
            assert frame.number == number
            assert np.array_equal(frame.rgb, whole[number])
            (position,) = stretch.gops
            assert firsts[position] <= number < firsts[position + 1]


@pytest.mark.parametrize("depth", ["bytes", "symbols", "pixels"])
def test_what_was_committed_is_verified_to_its_pixels(made: Path, depth: str) -> None:
    (report,) = verify([str(made)], VerifyOptions(depth=depth, model="fake"), load_codec=load_fake)
    assert report.counts == {"ok": 1}, report.problems


def test_it_is_skipped_with_the_same_options_and_refused_with_others(clips: Path, made: Path) -> None:
    assert isinstance(planned(clips, made), PublishedVideo)
    for other, text in (
        (replace(CUTS, scene_cuts=False), "with --scene-cuts"),
        (replace(CUTS, deinterlace=True), "without --deinterlace"),
        (replace(CUTS, enlarge=False), "with --enlarge"),
        (replace(CUTS, refine=3), "--refine 0, not 3"),
        (replace(CUTS, gop=8), "GOP 16"),
    ):
        failure = planned(clips, made, other)
        assert isinstance(failure, VideoFailure)
        assert failure.error_class == "ObjectExists"
        assert text in failure.error


def test_an_archive_without_rows_is_described_with_its_own_lengths(
    clips: Path, made: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    shutil.rmtree(out / "manifest")
    video = planned(clips, out)
    adopt(video, JobContext("j2", WHEN, CUTS, CODEC), open_storage(str(out)))
    assert [row["frames_expected"] for row in rows_of(out)] == GOPS
    assert {row["status"] for row in rows_of(out)} == {"ok"}


def test_gops_of_another_plan_are_never_put_together(clips: Path, tmp_path: Path) -> None:
    """Staged GOPs whose lengths are not the plan's would lose frames without a word."""
    storage = open_storage(str(tmp_path / "out"))
    video = planned(clips, tmp_path / "out")
    gops = stage(video, storage)
    staged = unpack_staged(storage.read(gops[0].key), gops[0].key)
    other = replace(staged, gop=replace(gops[0], frames_expected=8))
    storage.put(gops[0].key, pack_staged(other), overwrite=True)
    payloads = {gop.index: gop.payload_sha256 for gop in gops}
    with pytest.raises(CorruptArchive, match="other lengths than planned"):
        commit_video(video, payloads, JobContext("j1", WHEN, CUTS, CODEC), storage)
    assert storage.stat("cuts.mp4.s2vc") is None


@pytest.fixture(scope="module")
def progressive(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A destination with the archive of ``fields.mkv``, deinterlaced."""
    out = tmp_path_factory.mktemp("progressive") / "out"
    run(clips, "fields.mkv", out, FIELDS)
    return out


def test_a_deinterlaced_archive_says_so_and_lists_the_source_s_own_frames(
    clips: Path, progressive: Path, tmp_path: Path
) -> None:
    with (progressive / "fields.mkv.s2vc").open("rb") as file:
        header = ArchiveReader(file).header
    assert (header.deinterlace, header.tags.field_order) == (True, "progressive")
    assert header.decisions == ("17 interlaced pictures (bottom field first) deinterlaced by FFmpeg's bwdif",)
    assert {row["source_notes"] for row in rows_of(progressive)} == set(header.decisions)
    run(clips, "fields.mkv", tmp_path / "woven", replace(FIELDS, deinterlace=False))
    lists = [out / "fields.mkv.framemd5" for out in (progressive, tmp_path / "woven")]
    assert lists[0].read_bytes() == lists[1].read_bytes()
    with lists[0].open("rb") as file:
        assert len(list(read_frame_list(file))) == 17
    payloads = [[row["payload_sha256"] for row in rows_of(out)] for out in (progressive, tmp_path / "woven")]
    assert all(a != b for a, b in zip(*payloads, strict=True))


def test_a_deinterlaced_archive_is_verified_against_deinterlaced_pictures(
    progressive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = VerifyOptions(depth="pixels", model="fake")
    (report,) = verify([str(progressive)], options, load_codec=load_fake)
    assert report.counts == {"ok": 1}, report.problems

    def woven_always(*arguments: Any, deinterlace: bool, **others: Any) -> Any:
        return decode_gop(*arguments, **others)

    monkeypatch.setattr("s2vc_ray.verify_decode.decode_gop", woven_always)
    (report,) = verify([str(progressive)], options, load_codec=load_fake)
    assert report.counts == {"measurement": 1}
