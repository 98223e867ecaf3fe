"""Destinations as jobs leave them, without running a job."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime
from typing import Any

from s2vc_ray.config import MetricPolicy
from s2vc_ray.manifest import ManifestRow, write_part
from s2vc_ray.staging import staging_key, staging_prefix
from s2vc_ray.storage import Storage
from tests.memory_storage import MemoryStorage

DAY = 86400.0


def video_id(name: str) -> str:
    """As `s2vc_ray.sources.Source.video_id`, of a source at ``/in``."""
    return hashlib.sha256(f"/in/{name}".encode()).hexdigest()[:16]


def gop_key(name: str, index: int, fingerprint: str = "ab") -> str:
    """Where a GOP of the video is staged."""
    prefix = staging_prefix(video_id(name), fingerprint * 32, "0123456789abcdef", MetricPolicy())
    return staging_key(prefix, index)


def sweep(storage: Storage, prefix: str = "", *, older_than: float) -> int:
    """Discard what is unfinished under ``prefix`` since over ``older_than`` seconds; how many were."""
    limit = storage.now() - older_than
    old = [write for write in storage.unfinished(prefix) if write.since <= limit]
    for write in old:
        storage.discard(write)
    return len(old)


def describe(
    storage: Storage,
    name: str,
    status: str,
    *,
    size: int | None = None,
    job: int = 1,
    gops: int = 1,
    **more: Any,
) -> str:
    """Write the manifest part of one video and job, and return its key."""
    key, data = _part(name, status, size, job, gops, tuple(more.items()))
    storage.put(key, data)
    return key


@functools.cache
def _part(
    name: str, status: str, size: int | None, job: int, gops: int, more: tuple[tuple[str, Any], ...]
) -> tuple[str, bytes]:
    failed = status == "failed"
    row = {
        "job": f"2026010{job}T000000Z-aaaaaa",
        "created": datetime(2026, 1, job, tzinfo=UTC),
        "config_hash": "0123456789abcdef",
        "config": "{}",
        "video_id": video_id(name),
        "source_uri": f"/in/{name}",
        "source_name": name,
        "status": status,
        "archive": None if failed else f"{name}.s2vc",
        "archive_bytes": size,
        "error_class": "SourceError" if failed else "IncompleteSource" if status == "partial" else None,
        "error": f"{name} is broken" if status != "ok" else None,
        **dict(more),
    }
    written = MemoryStorage()
    key = write_part(written, [ManifestRow(**row, gop_index=index) for index in range(gops)])
    return key, written.read(key)
