"""The whole thing with nothing faked: Ray actors, the trained codec, and a decoder that saw only the archive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.manifest import read_manifest
from tests import media

PTS = (0, 40, 80, 130, 160, 200, 280, 290, 330, 400)


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def seconds(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.mark.slow
def test_a_video_becomes_an_archive_and_comes_back_in_another_process(tmp_path: Path) -> None:
    clip = media.make_clip(
        tmp_path / "a.mkv", pts=PTS, time_base=Fraction(1, 1000), size=(96, 64), audio="aac"
    )
    config = JobConfig(
        gop=4, workers=2, device="cpu", allow_larger=True, metrics=MetricPolicy.parse("sample:2", ("psnr",))
    )
    report = compress([str(clip)], str(tmp_path / "out"), config)
    assert report.clean

    archive = tmp_path / "out" / "a.mkv.s2vc"
    rows = read_manifest(str(tmp_path / "out")).to_pylist()
    assert [row["frames_encoded"] for row in rows] == [4, 4, 2]
    assert {row["verify"] for row in rows} == {"decoded"}
    with archive.open("rb") as stream:
        held = [entry.payload_bytes for entry in ArchiveReader(stream).index.gops]
    assert held == [row["payload_bytes"] for row in rows]
    assert sum(held) == report.videos[0].payload_bytes

    clip.rename(tmp_path / "hidden.mkv")
    back = decode_elsewhere(archive, tmp_path / "back.mkv")
    clip = tmp_path / "hidden.mkv"
    assert (back["frames"], back["gops"], back["frames_lost"]) == (10, 3, 0)
    assert seconds(tmp_path / "back.mkv") == seconds(clip) == [Fraction(t, 1000) for t in PTS]
    assert sound(tmp_path / "back.mkv") == sound(clip)
    source, decoded = (media.all_frames(path)[1] for path in (clip, tmp_path / "back.mkv"))
    assert (decoded[0].width, decoded[0].height) == (96, 64)
    errors = [
        np.square(a.to_ndarray(format="rgb24") - b.to_ndarray(format="rgb24").astype(float)).mean()
        for a, b in zip(source, decoded, strict=True)
    ]
    assert max(errors) < 1200, "the decoded pictures are not recognisably the source"


def decode_elsewhere(archive: Path, out: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "s2vc_ray.cli", "decompress", str(archive), str(out), "--json"]
    done = subprocess.run(
        command, check=True, capture_output=True, cwd=archive.parent, env=os.environ, timeout=240
    )
    report: dict[str, object] = json.loads(done.stdout)
    return report
