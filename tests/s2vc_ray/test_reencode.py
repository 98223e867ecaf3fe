"""Chosen GOPs coded again: what is replaced, what is copied, which version counts, and what must stop it."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import reencode_commit
from s2vc_ray.archive import ArchiveReader, write_archive
from s2vc_ray.audit import AuditOptions, audit
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import decompress
from s2vc_ray.errors import ConfigError, ObjectMissing, StorageError
from s2vc_ray.framemd5 import ListedFrame, read_frame_list
from s2vc_ray.gc import collect
from s2vc_ray.manifest import ManifestRow, read_manifest, write_part
from s2vc_ray.manifest_compact import compact_manifest
from s2vc_ray.provenance import read_events
from s2vc_ray.reencode import preview, reencode
from s2vc_ray.results import JobReport, VideoResult
from s2vc_ray.status import status
from s2vc_ray.storage import open_storage
from s2vc_ray.tables import summarise_manifest
from s2vc_ray.targets import Floor
from s2vc_ray.values import FrameDigest
from s2vc_ray.verify import verify
from s2vc_ray.verify_archive import VerifyOptions
from tests import media
from tests.fakes import FakeCodec, load_fake

GOP_1 = "gop_index = 1"


def config(**options: Any) -> JobConfig:
    usual = {"model": "fake", "executor": "local", "gop": 8, "quality": 20, "allow_larger": True}
    return JobConfig(**{**usual, "metrics": MetricPolicy.parse("none"), **options})


def first(source: Path, out: Path, **options: Any) -> JobReport:
    return compress([str(source)], str(out), config(**options), load_codec=load_fake)


def again(out: Path, where: str = GOP_1, *, root: Path | None = None, **options: Any) -> JobReport:
    return reencode(
        str(out),
        where,
        config(**{"quality": 63, **options}),
        source_root=str(root) if root else None,
        load_codec=load_fake,
    )


def only(report: JobReport) -> VideoResult:
    (video,) = report.videos
    return video


def rows(out: Path, archive: str | None = None) -> list[dict[str, Any]]:
    found = read_manifest(str(out)).to_pylist()
    return [row for row in found if archive is None or row["archive"] == archive]


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def payloads(archive: Path) -> list[tuple[int, bytes]]:
    return [(gop.q, gop.payload) for gop in ArchiveReader(archive.read_bytes()).gops()]


def verdicts(out: Path) -> dict[str, int]:
    (report,) = verify([str(out)], VerifyOptions(events=False))
    return dict(report.counts)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.mp4"
    path.parent.mkdir()
    media.make_clip(path, frames=28, audio="aac")
    return path


@pytest.fixture
def out(clip: Path, tmp_path: Path) -> Path:
    """A destination with one archive of four GOPs, q 20."""
    assert first(clip, tmp_path / "out").clean
    return tmp_path / "out"


def test_named_gops_are_coded_again_and_all_else_is_copied(out: Path, clip: Path, tmp_path: Path) -> None:
    before, source = tree(out), hashlib.sha256(clip.read_bytes()).hexdigest()
    report = again(out, "gop_index in (1, 3)")
    assert (only(report).status, only(report).archive) == ("ok", "a.mp4.v2.s2vc")
    after = tree(out)
    assert {name: after[name] for name in before if name != "manifest-sha256.txt"} == {
        name: digest for name, digest in before.items() if name != "manifest-sha256.txt"
    }
    assert hashlib.sha256(clip.read_bytes()).hexdigest() == source
    old, new = (ArchiveReader((out / name).read_bytes()) for name in ("a.mp4.s2vc", "a.mp4.v2.s2vc"))
    assert [gop.q for gop in new.gops()] == [20, 63, 20, 63]
    for a, b in zip(old.gops(), new.gops(), strict=True):
        assert (a.pts, a.first_frame, a.codec) == (b.pts, b.first_frame, b.codec)
        assert (a.payload == b.payload) == (a.index in (0, 2))
    assert b"".join(old.passthrough()) == b"".join(new.passthrough()) != b""
    assert new.header.replaces == before["a.mp4.s2vc"]
    assert new.header.archive_version == 2
    done = decompress(
        str(out / "a.mp4.v2.s2vc"), str(tmp_path / "back.mkv"), model="fake", load_codec=load_fake
    )
    assert (done.frames, done.frames_lost) == (28, 0)
    # All of it at once is what a job at that quality would have made of these GOPs.
    first(clip, tmp_path / "best", quality=63)
    best = payloads(tmp_path / "best" / "a.mp4.s2vc")
    assert payloads(out / "a.mp4.v2.s2vc")[1::2] == best[1::2]


def test_the_manifest_describes_every_gop_of_the_new_version(out: Path, clip: Path) -> None:
    again(out)
    old, new = rows(out, "a.mp4.s2vc"), rows(out, "a.mp4.v2.s2vc")
    data = (out / "a.mp4.v2.s2vc").read_bytes()
    assert [row["q"] for row in new] == [20, 63, 20, 20]
    assert {row["archive_version"] for row in new} == {2}
    assert {row["replaces"] for row in new} == {old[0]["archive_sha256"]}
    assert {row["archive_sha256"] for row in new} == {hashlib.sha256(data).hexdigest()}
    assert {row["archive_version"] for row in old} == {1}
    for a, b in zip(old, new, strict=True):
        held = data[b["payload_offset"] : b["payload_offset"] + b["payload_bytes"]]
        assert hashlib.sha256(held).hexdigest() == b["payload_sha256"]
        assert b["coded_job"] == (b["job"] if b["gop_index"] == 1 else a["job"])
        assert b["framemd5_sha256"] == a["framemd5_sha256"] is not None
        if b["gop_index"] != 1:
            own = {"job", "created", "config", "config_hash", "archive", "archive_bytes", "archive_sha256"}
            own |= {"payload_offset", "archive_version", "replaces"}
            assert {name for name in a if a[name] != b[name]} == own
    assert '"where": "gop_index = 1"' in new[0]["config"]


def test_figures_are_carried_and_only_new_gops_measured(clip: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "out", ("psnr",)
    first(clip, out, metrics=MetricPolicy.parse("sample:2", names))
    again(out, metrics=MetricPolicy.parse("sample:3", names))
    old, new = rows(out, "a.mp4.s2vc"), rows(out, "a.mp4.v2.s2vc")
    assert [row["metric_policy"] for row in new] == ["sample:2", "sample:3", "sample:2", "sample:2"]
    for name in ("psnr_mean", "psnr_worst", "psnr_p5", "metric_frames", "encode_seconds", "verify", "device"):
        assert [row[name] for row in new if row["gop_index"] != 1] == [
            row[name] for row in old if row["gop_index"] != 1
        ]
    assert new[1]["psnr_mean"] is not None
    assert new[1]["metric_frames"] == 3


def test_the_same_command_twice_makes_one_version(out: Path) -> None:
    again(out)
    before = tree(out)
    assert again(out).videos == ()
    assert tree(out) == before


def test_versions_follow_one_another(out: Path) -> None:
    again(out)
    assert only(again(out, "true", quality=40)).archive == "a.mp4.v3.s2vc"
    assert [q for q, _ in payloads(out / "a.mp4.v3.s2vc")] == [40, 40, 40, 40]
    assert {row["replaces"] for row in rows(out, "a.mp4.v3.s2vc")} == {
        hashlib.sha256((out / "a.mp4.v2.s2vc").read_bytes()).hexdigest()
    }
    assert status(str(out), older_than=1).clean


def test_a_version_with_the_old_payloads_is_not_made(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, encode = tree(out), FakeCodec._encode
    monkeypatch.setattr(FakeCodec, "_encode", lambda codec, frames, q: encode(codec, frames, 20))
    assert only(again(out)).status == "skipped"
    assert tree(out) == before


def test_compress_keeps_to_the_latest_version(out: Path, clip: Path) -> None:
    again(out)
    before = tree(out)
    assert (only(first(clip, out)).status, only(first(clip, out)).archive) == ("skipped", "a.mp4.v2.s2vc")
    os.utime(clip, (1, 1))
    assert only(first(clip, out)).status == "skipped"
    # Without the first version, too.
    (out / "a.mp4.s2vc").unlink()
    assert only(first(clip, out)).status == "skipped"
    assert {**tree(out), "a.mp4.s2vc": before["a.mp4.s2vc"]} == before


def test_another_source_of_the_same_bytes_is_told_of_the_latest_version(
    out: Path, clip: Path, tmp_path: Path
) -> None:
    again(out)
    moved = tmp_path / "elsewhere" / "a.mp4"
    moved.parent.mkdir()
    shutil.copy(clip, moved)
    assert only(first(moved, out)).archive == "a.mp4.v2.s2vc"
    (standing,) = summarise_manifest(read_manifest(str(out)))
    assert (standing["archive"], standing["source_uri"]) == ("a.mp4.v2.s2vc", str(moved))
    assert {row["archive_version"] for row in rows(out) if row["source_uri"] == str(moved)} == {2}
    # And whoever described the first version by another path no longer counts when it is replaced.
    again(out, "true", quality=40)
    report = audit(str(out), AuditOptions())
    assert [row["archive"] for row in report.rows] == ["a.mp4.v3.s2vc"]
    (standing,) = summarise_manifest(read_manifest(str(out)))
    assert standing["archive"] == "a.mp4.v3.s2vc"
    bag = (out / "manifest-sha256.txt").read_text().split()[1::2]
    assert bag == ["a.mp4.v3.s2vc", "a.mp4.framemd5"]


def test_readers_of_the_destination_keep_to_the_latest_version(out: Path) -> None:
    again(out)
    assert verdicts(out)["ok"] == 2
    assert sum(verdicts(out).values()) == 2
    (video,) = summarise_manifest(read_manifest(str(out)))
    assert (video["archive"], video["q"], video["q_max"], video["gops"]) == ("a.mp4.v2.s2vc", 20, 63, 4)
    for compacted in (False, True):
        if compacted:
            assert compact_manifest(str(out)).parts == 2
        report = audit(str(out), AuditOptions())
        (row,) = report.rows
        assert (row["archive"], row["gops"], row["q_max"]) == ("a.mp4.v2.s2vc", 4, 63)
    (out / "a.mp4.s2vc").unlink()
    assert verdicts(out) == {"ok": 1}
    assert status(str(out), older_than=1).clean
    events = [event for event in read_events(str(out)).to_pylist() if event["object"] == "a.mp4.v2.s2vc"]
    assert [event["event_type"] for event in events] == ["re-encoding"]
    assert "GOPs 1 of 4 coded again (gop_index = 1)" in events[0]["detail"]
    assert rows(out, "a.mp4.s2vc")[0]["archive_sha256"] in events[0]["detail"]


def test_a_damaged_later_version_shows(out: Path) -> None:
    again(out)
    path = out / "a.mp4.v2.s2vc"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert verdicts(out) == {"damaged": 1, "ok": 1}
    (out / "a.mp4.framemd5").write_text("other")
    assert verdicts(out) == {"damaged": 1, "frame list": 1}


def test_a_version_that_is_gone_gives_way_to_the_first(out: Path, clip: Path) -> None:
    again(out)
    (out / "a.mp4.v2.s2vc").unlink()
    assert status(str(out), older_than=1).counts["missing"] == 1
    result = only(again(out, "gop_index = 2"))
    assert (result.status, result.error_class) == ("failed", "ObjectMissing")
    assert only(first(clip, out)).archive == "a.mp4.s2vc"
    assert status(str(out), older_than=1).clean
    assert only(again(out)).archive == "a.mp4.v2.s2vc"


def test_a_version_of_another_size_is_an_error(out: Path, clip: Path) -> None:
    again(out)
    with (out / "a.mp4.v2.s2vc").open("ab") as stream:
        stream.write(b"more")
    result = only(first(clip, out))
    assert (result.status, result.error_class) == ("failed", "ObjectExists")
    assert "s2vc" in (result.error or "")


def test_another_source_changes_nothing(out: Path, clip: Path) -> None:
    before = tree(out)
    media.make_clip(clip, frames=28, audio="aac", seed=7)
    result = only(again(out))
    assert (result.status, result.error_class) == ("failed", "SourceError")
    assert "is not what a.mp4.s2vc was made from" in (result.error or "")
    (failure,) = [row for row in rows(out) if row["status"] == "failed"]
    assert failure["error"] == result.error
    after = tree(out)
    assert {name: digest for name, digest in after.items() if name in before} == before
    assert set(after) - set(before) == {f"manifest/job={failure['job']}/{failure['video_id']}.parquet"}
    (video,) = summarise_manifest(read_manifest(str(out)))
    assert (video["archive"], video["later_failure"] is None) == ("a.mp4.s2vc", False)
    (event,) = [event for event in read_events(str(out)).to_pylist() if event["outcome"] == "failure"]
    assert event["event_type"] == "re-encoding"


def test_a_source_may_have_moved(out: Path, clip: Path, tmp_path: Path) -> None:
    moved = tmp_path / "tapes"
    moved.mkdir()
    kept = clip.stat()
    shutil.copy(clip, moved / "a.mp4")
    clip.unlink()
    result = only(again(out))
    assert (result.status, result.error_class) == ("failed", "ObjectMissing")
    assert only(again(out, root=moved)).status == "ok"
    assert {row["source_uri"] for row in rows(out, "a.mp4.v2.s2vc")} == {str(clip)}
    shutil.copy(moved / "a.mp4", clip)
    os.utime(clip, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert only(first(clip, out)).status == "skipped"


@pytest.mark.parametrize("part", ["payload", "passthrough", "tail"])
def test_a_damaged_archive_is_not_built_on(out: Path, part: str) -> None:
    path = out / "a.mp4.s2vc"
    data = bytearray(path.read_bytes())
    index = ArchiveReader(bytes(data)).index
    at = {"payload": index.gops[2].payload_offset, "passthrough": index.end - 1, "tail": len(data) - 30}[part]
    data[at] ^= 1
    path.write_bytes(data)
    assert only(again(out)).error_class == "CorruptArchive"
    assert not (out / "a.mp4.v2.s2vc").exists()


def test_another_whole_archive_is_not_built_on(out: Path) -> None:
    path = out / "a.mp4.s2vc"
    reader, other = ArchiveReader(path.read_bytes()), BytesIO()
    write_archive(
        other,
        replace(reader.header, source_sha256=reader.header.source_sha256[::-1]),
        reader.gops(),
        reader.passthrough(),
    )
    assert len(other.getvalue()) == path.stat().st_size
    path.write_bytes(other.getvalue())
    result = only(again(out))
    assert (result.error_class, "not the archive that" in (result.error or "")) == ("CorruptArchive", True)


def test_a_gop_that_the_manifest_describes_otherwise_is_not_copied(out: Path) -> None:
    (part,) = (out / "manifest").rglob("*.parquet")
    made = [ManifestRow(**row) for row in rows(out)]
    part.unlink()
    made[2] = replace(made[2], payload_sha256="0" * 64)
    write_part(open_storage(str(out)), made)
    result = only(again(out))
    assert (result.error_class, "GOP 2 is not the one" in (result.error or "")) == ("CorruptArchive", True)
    assert not (out / "a.mp4.v2.s2vc").exists()


def test_frames_that_decode_otherwise_are_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(lines: Any) -> Any:
        for frame in read_frame_list(lines):
            yield ListedFrame(frame.pts, frame.duration, FrameDigest(frame.digest.size, "0" * 32))

    monkeypatch.setattr(reencode_commit, "read_frame_list", other)
    result = only(again(out))
    assert result.error_class == "SourceError"
    assert "GOP 1 decode otherwise" in (result.error or "")
    assert not (out / "a.mp4.v2.s2vc").exists()


@pytest.mark.parametrize("model", ["fake:other", "fake:later"])
def test_other_weights_are_refused(out: Path, model: str) -> None:
    result = only(again(out, model=model))
    assert result.error_class == "WrongWeights"
    assert "give the other with --model" in (result.error or "")


def test_an_archive_larger_than_its_source_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (out / "a.mp4.s2vc").stat().st_size
    monkeypatch.setattr("s2vc_ray.reencode_commit.check_smaller", _too_large)
    assert only(again(out)).status == "ok", f"{size} bytes were allowed"
    assert only(again(out, "gop_index = 0", allow_larger=False)).error_class == "LargerThanSource"
    assert not (out / "a.mp4.v3.s2vc").exists()


def _too_large(*_: Any) -> None:
    from s2vc_ray.errors import LargerThanSource

    raise LargerThanSource("larger")


def test_what_lies_under_the_name_is_left_alone(out: Path) -> None:
    (out / "a.mp4.v2.s2vc").write_bytes(b"somebody's")
    result = only(again(out))
    assert (result.status, result.error_class) == ("failed", "ObjectExists")
    assert (out / "a.mp4.v2.s2vc").read_bytes() == b"somebody's"


def test_sources_called_like_versions_keep_their_names(out: Path, clip: Path) -> None:
    twin = media.make_clip(clip.with_name("a.mp4.v2.mkv"), frames=9, seed=5)
    twin = twin.rename(clip.with_name("a.mp4.v2"))
    again(out)
    assert only(first(twin, out)).archive == "a.mp4.v2.v1.s2vc"
    assert only(again(out, "source_name = 'a.mp4.v2'")).archive == "a.mp4.v2.v2.s2vc"
    assert verdicts(out) == {"ok": 4}
    assert status(str(out), older_than=1).clean


def test_a_failing_gop_changes_nothing(out: Path) -> None:
    result = only(again(out, "gop_index = 3", model="fake:fail=4", attempts=2))
    assert (result.status, result.error_class) == ("failed", "BitstreamError")
    assert not (out / "a.mp4.v2.s2vc").exists()


def test_staging_of_a_version_is_kept_until_it_is_made(out: Path) -> None:
    again(out, "gop_index in (1, 3)", model="fake:fail=4", attempts=1)
    report = status(str(out), older_than=3600)
    assert (report.counts["staged"], report.counts["orphaned"]) == (1, 0)
    assert collect(str(out), older_than=3600).removed == []
    assert again(out, "gop_index in (1, 3)").clean
    report = status(str(out), older_than=3600)
    assert (report.counts["staged"], report.counts["orphaned"]) == (0, 0)


def test_what_is_chosen_is_shown_without_changing_anything(out: Path) -> None:
    before = tree(out)
    (one,) = preview(str(out), "gop_index > 0 and q < 50", config(quality=63))
    assert (one.archive, one.version, one.gops) == ("a.mp4.s2vc", "a.mp4.v2.s2vc", (1, 2, 3))
    assert (one.frames, one.q_min, one.q_max) == (20, 20, 20)
    assert list(preview(str(out), "true", config(quality=20))) == []
    assert tree(out) == before


def test_conditions_that_make_no_sense(out: Path, tmp_path: Path) -> None:
    before = tree(out)
    for where, said in (("", "which GOPs"), ("nonsense > 1", "nonsense"), ("1 = 1; select 2", "expression")):
        with pytest.raises(ConfigError, match=said):
            again(out, where)
    assert tree(out) == before
    with pytest.raises(ObjectMissing, match="no manifest"):
        again(tmp_path / "nothing")


def test_an_unreadable_manifest_is_not_built_on(out: Path) -> None:
    (part,) = (out / "manifest").rglob("*.parquet")
    torn = part.with_name("0" * 16 + ".parquet")
    torn.write_bytes(b"torn")
    with pytest.raises(StorageError, match="which archives count"):
        again(out)


def test_options_of_archives_are_taken_from_the_manifest(clip: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", media.make_clip(clip.with_name("b.mp4"), frames=9, seed=3)
    first(clip, out, scene_cuts=True)
    assert only(again(out)).status == "ok"
    first(other, out, scene_cuts=False, enlarge=False, refine=2)
    with pytest.raises(ConfigError, match="different options"):
        again(out, "true", quality=62)
    assert only(again(out, "source_name = 'b.mp4'")).status == "ok"
    assert {row["status"] for row in rows(out)} == {"ok"}
    with (out / "b.mp4.v2.s2vc").open("rb") as stream:
        header = ArchiveReader(stream).header
    assert (header.own_size, header.refine) == (True, 2)


def test_open_storage_is_enough(out: Path) -> None:
    report = reencode(open_storage(str(out)), GOP_1, config(quality=63), load_codec=load_fake)
    assert report.clean


def test_gops_of_the_fallback_codec_are_copied_and_replaced_like_others(clip: Path, tmp_path: Path) -> None:
    out, measured = tmp_path / "out", MetricPolicy.parse("sample:2", ("psnr",))
    first(clip, out, metrics=measured, target=Floor.parse("psnr=30"), quality=63, fallback="av1")
    made = rows(out)
    assert {row["codec"] for row in made} == {"av1"}, "the fake codec reaches no such floor"
    assert only(again(out)).status == "ok"
    new = rows(out, "a.mp4.v2.s2vc")
    assert [row["codec"] for row in new] == ["av1", "s2vc", "av1", "av1"]
    assert [row["crf"] for row in new] == [made[0]["crf"], None, made[2]["crf"], made[3]["crf"]]
    assert [row["q"] for row in new] == [None, 63, None, None]
    assert [row["target_met"] for row in new] == [True, None, True, True]
    assert verdicts(out) == {"ok": 2}
    assert only(again(out, "codec = 'av1'")).archive == "a.mp4.v3.s2vc"
    assert {row["codec"] for row in rows(out, "a.mp4.v3.s2vc")} == {"s2vc"}
