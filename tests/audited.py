"""Manifests for audits: rows with figures that can be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from s2vc_ray.manifest import ManifestRow, write_part
from s2vc_ray.storage import Storage
from tests.destinations import video_id


def job_id(day: int) -> str:
    return f"202601{day:02}T000000Z-aaaaaa"


def row(name: str, *, day: int = 1, **more: Any) -> ManifestRow:
    """A GOP of one second, 25 frames of 100x10 pixels; or a failure, when ``status`` says so."""
    base = ManifestRow(
        job=job_id(day),
        created=datetime(2026, 1, day, tzinfo=UTC),
        config_hash="0123456789abcdef",
        config="{}",
        video_id=video_id(name),
        source_uri=f"/in/{name}",
        source_name=name,
        status="ok",
    )
    if more.get("status") == "failed":
        return replace(base, **{"error_class": "SourceError", "error": f"{name} is broken", **more})
    payload = more.get("payload_bytes", 1000)
    figures = {
        "source_size": 10_000,
        "archive": f"{name}.s2vc",
        "archive_bytes": 2_000,
        "archive_sha256": "a" * 64,
        "gop_index": 0,
        "frames_expected": 25,
        "frames_encoded": 25,
        "frames_corrupt": 0,
        "width": 100,
        "height": 10,
        "pts_first": 50 + 25 * more.get("gop_index", 0),
        "time_base_num": 1,
        "time_base_den": 25,
        "payload_bytes": payload,
        "bpp": 8 * payload / 25_000,
        "kbps": 8 * payload / 1000,
        "q": 20,
        "codec": "s2vc",
        "psnr_mean": 30.0,
        "psnr_worst": 28.0,
        "metric_policy": "sample:4",
        "metric_frames": 4,
        "verify": "decoded",
        "model_id": "fake",
        "weights_sha256": "b" * 64,
        "device": "cpu",
        "torch": "2",
        "encode_seconds": 5.0,
        "attempts": 1,
    }
    return replace(base, **{**figures, **more})


def video(storage: Storage, name: str, gops: Sequence[dict[str, Any]] = ({},), **more: Any) -> str:
    """Write a video's part, a row for each of ``gops``' columns, and return its key."""
    return write_part(storage, [row(name, **{"gop_index": at, **more, **gop}) for at, gop in enumerate(gops)])
