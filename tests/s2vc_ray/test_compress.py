"""The job from end to end with a fake codec: bad sources, interruption, repetition, an honest manifest."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import pytest

from s2vc_ray import commit
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import decompress
from s2vc_ray.errors import ConfigError
from s2vc_ray.manifest import read_manifest
from s2vc_ray.results import JobReport
from s2vc_ray.staging import STAGING
from s2vc_ray.storage import TEMPORARY_SUFFIX
from tests import media
from tests.fakes import FakeCodec, load_fake


def config(**options: Any) -> JobConfig:
    defaults = {
        "model": "fake",
        "executor": "local",
        "allow_larger": True,
        "gop": 8,
        "batch": 2,
        "metrics": MetricPolicy.parse("none"),
    }
    return JobConfig(**{**defaults, **options})


def run(sources: list[Path], out: Path, **options: Any) -> JobReport:
    return compress([str(source) for source in sources], str(out), config(**options), load_codec=load_fake)


def rows(out: Path) -> list[dict[str, Any]]:
    return read_manifest(str(out)).to_pylist()


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """One folder of everything an archive may hold."""
    folder = tmp_path / "in"
    folder.mkdir()
    whole = media.make_clip(folder / "good.mp4", frames=20, audio="aac")
    media.make_clip(folder / "odd.mkv", frames=9, size=(66, 51), pix_fmt="yuv444p")
    media.make_clip(folder / "rotated.mp4", frames=8, rotation=90)
    media.make_clip(folder / "vfr.mkv", pts=[0, 40, 90, 100, 200, 210])
    media.make_clip(folder / "ten_bit.mkv", codec="libx265", pix_fmt="yuv420p10le", frames=5)
    big = media.make_clip(folder / "big.mp4", frames=60, gop=4)
    media.corrupt_middle(big, folder / "corrupt.mp4")
    media.truncate(whole, folder / "truncated.mp4")
    media.empty_file(folder / "empty.mp4")
    media.text_file(folder / "letter.mp4")
    media.random_file(folder / "noise.mp4")
    media.make_audio(folder / "sound.mp4")
    return folder


def test_good_videos_are_finished_and_bad_ones_recorded(batch: Path, tmp_path: Path) -> None:
    before = tree(batch)
    report = run([batch, tmp_path / "missing.mp4"], tmp_path / "out")
    ended = {video.name: video.status for video in report.videos}
    bad = {"truncated.mp4", "empty.mp4", "letter.mp4", "noise.mp4", "sound.mp4", "missing.mp4"}
    good = {"good.mp4", "odd.mkv", "rotated.mp4", "vfr.mkv", "ten_bit.mkv", "big.mp4"}
    assert {name for name in good if ended[name] != "ok"} == set()
    assert {name for name in bad if ended[name] != "failed"} == set()
    assert tree(batch) == before
    failed = Counter(row["source_name"] for row in rows(tmp_path / "out") if row["status"] == "failed")
    assert {name: failed[name] for name in bad} == dict.fromkeys(bad, 1)
    for row in rows(tmp_path / "out"):
        assert (row["status"] == "ok") == (row["error"] is None)
    assert not list((tmp_path / "out").glob(f"{STAGING}/*"))


def test_damage_in_the_middle_is_counted_or_is_one_failure(batch: Path, tmp_path: Path) -> None:
    report = run([batch / "corrupt.mp4", batch / "good.mp4"], tmp_path / "out")
    damaged, good = report.videos
    assert good.status == "ok"
    of_damaged = [row for row in rows(tmp_path / "out") if row["source_name"] == "corrupt.mp4"]
    if damaged.status == "failed":
        assert len(of_damaged) == 1
    else:
        assert {(row["status"], row["error_class"]) for row in of_damaged} == {
            ("partial", "IncompleteSource")
        }
        lost = sum(row["frames_expected"] - row["frames_encoded"] for row in of_damaged)
        assert lost == damaged.frames_lost
        assert lost + sum(row["frames_corrupt"] for row in of_damaged) > 0


def test_a_truncated_source_never_looks_complete(tmp_path: Path) -> None:
    whole = media.make_clip(
        tmp_path / "whole.mp4", frames=40, gop=4, container_options={"movflags": "+faststart"}
    )
    cut = media.truncate(whole, tmp_path / "cut.mp4", 0.7)
    report = run([cut], tmp_path / "out")
    assert [(video.status, video.error_class) for video in report.videos] == [("partial", "IncompleteSource")]
    assert not report.clean
    made = rows(tmp_path / "out")
    assert {(row["status"], row["frames_declared"]) for row in made} == {("partial", 40)}
    coded = sum(row["frames_encoded"] for row in made)
    assert 0 < coded < 40
    assert report.videos[0].frames_lost == 40 - coded
    assert "announces 40 frames" in made[0]["error"]
    again = run([cut], tmp_path / "out")
    assert (again.videos[0].status, again.clean) == ("skipped", False)


def test_manifest_equals_the_archive_to_the_byte(batch: Path, tmp_path: Path) -> None:
    run([batch / "good.mp4"], tmp_path / "out")
    data = (tmp_path / "out" / "good.mp4.s2vc").read_bytes()
    reader = ArchiveReader(data)
    reader.verify()
    recorded = rows(tmp_path / "out")
    assert sum(len(gop.payload) for gop in reader.gops()) == sum(row["payload_bytes"] for row in recorded)
    assert sum(row["bits_i"] + row["bits_p"] for row in recorded) == 8 * sum(
        row["payload_bytes"] for row in recorded
    )
    for row, gop in zip(recorded, reader.gops(), strict=True):
        begin = row["payload_offset"]
        payload = data[begin : begin + row["payload_bytes"]]
        assert payload == gop.payload
        assert hashlib.sha256(payload).hexdigest() == row["payload_sha256"]
        assert row["archive_sha256"] == hashlib.sha256(data).hexdigest()
        assert row["source_sha256"] == hashlib.sha256((batch / "good.mp4").read_bytes()).hexdigest()
    assert sum(row["kbps"] * row["frames_encoded"] for row in recorded) == pytest.approx(
        sum(8 * row["payload_bytes"] / 1000 * 25 for row in recorded)
    )


def test_round_trip_keeps_times_size_and_sound(batch: Path, tmp_path: Path) -> None:
    run([batch / "good.mp4", batch / "vfr.mkv"], tmp_path / "out")
    for name in ("good.mp4", "vfr.mkv"):
        back = tmp_path / f"back-{name}"
        report = decompress(
            str(tmp_path / "out" / f"{name}.s2vc"), str(back), model="fake", load_codec=load_fake
        )
        with av.open(str(batch / name)) as one, av.open(str(back)) as other:
            times = [[frame.time for frame in clip.decode(video=0)] for clip in (one, other)]
            assert times[0] == pytest.approx(times[1])
            assert len(times[0]) == report.frames
            assert len(one.streams.audio) == len(other.streams.audio)


def test_running_again_changes_nothing(batch: Path, tmp_path: Path) -> None:
    sources = [batch / "good.mp4", batch / "odd.mkv"]
    run(sources, tmp_path / "out")
    before = tree(tmp_path / "out")
    report = run(sources, tmp_path / "out")
    assert report.count("skipped") == 2
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("step", ["_publish", "write_part", "clear_staging"])
def test_a_crash_at_any_step_of_the_commit_is_resumed(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    clip, out = batch / "good.mp4", tmp_path / "out"
    with monkeypatch.context() as broken:
        broken.setattr(commit, step, killed)
        with pytest.raises(KeyboardInterrupt):
            run([clip], out)
    monkeypatch.setattr(FakeCodec, "encode_gops", killed)
    report = run([clip], out)
    assert [video.status for video in report.videos] == ["skipped" if step == "clear_staging" else "ok"]
    recorded = rows(out)
    assert [row["gop_index"] for row in recorded] == [0, 1, 2]
    assert all(row["device"] == "cpu" for row in recorded)
    assert ArchiveReader((out / "good.mp4.s2vc").read_bytes()).header.frames == 20


def test_a_lost_measurement_is_not_made_up(batch: Path, tmp_path: Path) -> None:
    clip, out = batch / "good.mp4", tmp_path / "out"
    run([clip], out)
    for part in (out / "manifest").rglob("*.parquet"):
        part.unlink()
    run([clip], out)
    recorded = rows(out)
    data = (out / "good.mp4.s2vc").read_bytes()
    assert sum(row["payload_bytes"] for row in recorded) == sum(
        len(gop.payload) for gop in ArchiveReader(data).gops()
    )
    assert {(row["verify"], row["metric_policy"]) for row in recorded} == {("crc", "none")}


def test_a_poisonous_gop_fails_its_video_only_and_is_finished_later(batch: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run([batch / "good.mp4", batch / "rotated.mp4"], out, model="fake:fail=4", attempts=2)
    assert [video.status for video in report.videos] == ["failed", "ok"]
    (row,) = (row for row in rows(out) if row["status"] == "failed")
    assert (row["gop_index"], row["attempts"], row["error_class"]) == (2, 2, "BitstreamError")
    assert not (out / "good.mp4.s2vc").exists()
    assert run([batch / "good.mp4"], out).videos[0].status == "ok"


def test_an_existing_output_is_never_replaced(batch: Path, tmp_path: Path) -> None:
    run([batch / "good.mp4"], tmp_path / "out")
    before = (tmp_path / "out" / "good.mp4.s2vc").read_bytes()
    report = run([batch / "good.mp4"], tmp_path / "out", quality=1)
    assert report.videos[0].error_class == "ObjectExists"
    assert (tmp_path / "out" / "good.mp4.s2vc").read_bytes() == before


def test_a_source_that_changes_under_the_job_is_not_published(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = FakeCodec.encode_gops

    def touching(self: FakeCodec, *arguments: Any) -> Any:
        with (batch / "good.mp4").open("ab") as stream:
            stream.write(b"more")
        return encode(self, *arguments)

    monkeypatch.setattr(FakeCodec, "encode_gops", touching)
    (video,) = run([batch / "good.mp4"], tmp_path / "out").videos
    assert video.status == "failed"
    assert "changed while it was being compressed" in str(video.error)
    assert not (tmp_path / "out" / "good.mp4.s2vc").exists()


def test_half_written_objects_of_killed_jobs_are_swept(batch: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    old, new = (tmp_path / "out" / f".{name}{TEMPORARY_SUFFIX}" for name in ("old", "new"))
    for path, age in ((old, 48 * 3600), (new, 60)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    run([batch / "rotated.mp4"], tmp_path / "out")
    assert (old.exists(), new.exists()) == (False, True)


def test_an_unknown_model_stops_the_job_before_it_begins(batch: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        run([batch], tmp_path / "out", model="nonsense")
    assert not (tmp_path / "out").exists()
