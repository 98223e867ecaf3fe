"""The same job on a real S3 server: sources there, archives there, and back from there."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import decompress
from s2vc_ray.manifest import read_manifest
from s2vc_ray.results import JobReport
from s2vc_ray.staging import STAGING
from s2vc_ray.storage import open_storage
from tests import media
from tests.fakes import load_fake
from tests.seaweed import SeaweedServer

pytestmark = pytest.mark.s3


@pytest.fixture
def bucket(seaweed_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://{seaweed_server.new_bucket()}"


def run(source: str, destination: str) -> JobReport:
    config = JobConfig(
        model="fake",
        executor="local",
        allow_larger=True,
        gop=8,
        metrics=MetricPolicy.parse("sample:1", ("psnr",)),
    )
    return compress([source], destination, config, load_codec=load_fake)


def test_an_archive_made_on_s3_comes_back_from_s3(bucket: str, tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "a.mp4", frames=20, size=(66, 50), audio="aac")
    media.text_file(tmp_path / "letter.mp4")
    raw, out = open_storage(f"{bucket}/raw"), f"{bucket}/small"
    for path in (clip, tmp_path / "letter.mp4"):
        assert raw.put_file(f"tapes/{path.name}", path)

    report = run(raw.uri, out)
    assert {video.name: video.status for video in report.videos} == {
        "tapes/a.mp4": "ok",
        "tapes/letter.mp4": "failed",
    }
    storage = open_storage(out)
    assert not list(storage.list(f"{STAGING}/"))
    rows = [row for row in read_manifest(out).to_pylist() if row["status"] == "ok"]
    with storage.open(rows[0]["archive"]) as stream:
        reader = ArchiveReader(stream)
        reader.verify()
        held = [(entry.payload_offset, entry.payload_bytes) for entry in reader.index.gops]
    assert held == [(row["payload_offset"], row["payload_bytes"]) for row in rows]

    back = decompress(
        f"{out}/{rows[0]['archive']}", str(tmp_path / "b.mp4"), model="fake", load_codec=load_fake
    )
    assert (back.frames, back.gops, back.frames_lost) == (20, 3, 0)
    assert media.all_frames(tmp_path / "b.mp4")[0] == media.all_frames(clip)[0]
    with av.open(str(tmp_path / "b.mp4")) as written:
        assert written.streams.audio

    again = run(raw.uri, out)
    assert [video.status for video in again.videos] == ["skipped", "failed"]
