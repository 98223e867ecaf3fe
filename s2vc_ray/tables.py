"""The manifest and an archive as a person reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.table import Table

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.manifest import UNCODED
from s2vc_ray.words import size

_MEANS = ("psnr_mean", "ms_ssim_mean", "lpips_alex_mean")
_WORSTS = {"psnr_worst": min, "ms_ssim_worst": min, "lpips_alex_worst": max}


def summarise_manifest(manifest: pa.Table) -> list[dict[str, Any]]:
    """What stands of each video by the rule of `s2vc_ray.manifest`, one dict per video, in order of name.

    Sizes and bits are sums over GOPs, ``*_mean`` is weighted by measured frames, ``*_worst`` is the worst GOP's.
    ``q`` and ``q_max`` are the least and the greatest. ``later_failure`` is the error of a job that failed after the
    one that made the archive, None without one.
    """
    described: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, list[dict[str, Any]]] = {}
    replaced: dict[str, tuple[Any, str]] = {}
    for row in manifest.sort_by([(name, "ascending") for name in ("created", "job")]).to_pylist():
        latest = failed if row["status"] in UNCODED else described
        rows = latest.setdefault(row["video_id"], [])
        if rows and rows[0]["job"] != row["job"]:
            rows.clear()
        rows.append(row)
        if row["replaces"] and row["status"] not in UNCODED:
            replaced[row["replaces"]] = _age(rows)
    described = {
        video: rows
        for video, rows in described.items()
        if replaced.get(rows[0]["archive_sha256"], _age(rows)) <= _age(rows)
    }
    owners = {
        rows[0]["archive"]: video for video, rows in sorted(described.items(), key=lambda item: _age(item[1]))
    }
    videos = [
        _summary(rows, failed.get(video, ()))
        for video, rows in described.items()
        if owners[rows[0]["archive"]] == video
    ]
    videos += [_summary(rows) for video, rows in failed.items() if video not in described]
    return sorted(videos, key=lambda video: str(video["source_name"]))


def _age(rows: Sequence[dict[str, Any]]) -> tuple[Any, str]:
    return rows[0]["created"], rows[0]["job"]


def manifest_table(videos: Sequence[dict[str, Any]]) -> Table:
    """A table of what `summarise_manifest` returned."""
    table = Table(box=None, pad_edge=False)
    columns = ("video", "status", "GOPs", "frames", "size", "source", "archive", "ratio", "bpp", "kbps", "q")
    for name in (*columns, "PSNR (worst)", "MS-SSIM (worst)", "LPIPS (worst)"):
        table.add_column(name, justify="left" if name in ("video", "status") else "right", overflow="fold")
    for video in videos:
        table.add_row(*_cells(video))
    return table


def _summary(rows: Sequence[dict[str, Any]], failures: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    first = rows[0]
    later = failures and failures[0]["status"] == "failed" and _age(failures) > _age(rows)
    names = (
        "job",
        "video_id",
        "source_uri",
        "source_name",
        "status",
        "source_size",
        "archive",
        "archive_bytes",
    )
    video: dict[str, Any] = {
        name: first[name] for name in (*names, "archive_version", "width", "height", "error_class", "error")
    }
    coded_at = [row["q"] for row in rows if row["q"] is not None]
    video |= {"q": min(coded_at, default=None), "q_max": max(coded_at, default=None)}
    failed = first["status"] in UNCODED
    frames = sum(row["frames_encoded"] or 0 for row in rows)
    payload = sum(row["payload_bytes"] or 0 for row in rows)
    seconds = sum(8 * row["payload_bytes"] / row["kbps"] / 1000 for row in rows if row["kbps"])
    video |= {
        "later_failure": f"{failures[0]['error_class']}: {failures[0]['error']}" if later else None,
        "gops": 0 if failed else len(rows),
        "frames": frames,
        "payload_bytes": payload,
        "bpp": None if failed else 8 * payload / (frames * first["width"] * first["height"]),
        "kbps": 8 * payload / seconds / 1000 if seconds else None,
    }
    for name in _MEANS:
        weighted = [(row[name], row["metric_frames"]) for row in rows if row[name] is not None]
        weight = sum(count for _, count in weighted)
        video[name] = sum(value * count for value, count in weighted) / weight if weight else None
    for name, worst in _WORSTS.items():
        video[name] = worst((row[name] for row in rows if row[name] is not None), default=None)
    return video


def _cells(video: dict[str, Any]) -> list[str]:
    if video["status"] in UNCODED:
        return [video["source_name"], video["status"], *["-"] * 12]
    source, archive = video["source_size"], video["archive_bytes"]
    return [
        video["source_name"],
        video["status"],
        str(video["gops"]),
        str(video["frames"]),
        f"{video['width']}x{video['height']}",
        size(source),
        size(archive),
        f"{source / archive:.1f}x" if source and archive else "-",
        f"{video['bpp']:.4f}",
        _number(video["kbps"], 1),
        "-".join(dict.fromkeys(str(q) for q in (video["q"], video["q_max"]) if q is not None)) or "-",
        *(
            f"{_number(video[f'{name}_mean'], digits)} ({_number(video[f'{name}_worst'], digits)})"
            for name, digits in (("psnr", 2), ("ms_ssim", 4), ("lpips_alex", 4))
        ),
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def archive_facts(reader: ArchiveReader, *, verified: bool) -> dict[str, Any]:
    """What an archive says about itself, in the order a person asks: plain values, ready for JSON.

    ``codecs``, how many GOPs each codec has, takes reading all of them: None unless they have been ``verified``.
    """
    header, gops = reader.header, reader.index.gops
    frames = sum(entry.frames for entry in gops)
    payload = sum(entry.payload_bytes for entry in gops)
    return {
        "source_name": header.source_name,
        "source_size": header.source_size,
        "source_sha256": header.source_sha256,
        "width": header.width,
        "height": header.height,
        "rotation": header.rotation,
        "sample_aspect": str(header.sample_aspect),
        "field_order": header.tags.field_order,
        "deinterlace": header.deinterlace,
        "source_pix_fmt": header.source_pix_fmt,
        "decisions": list(header.decisions),
        "average_rate": str(header.average_rate) if header.average_rate else None,
        "time_base": str(header.time_base),
        "frames": frames,
        "frames_expected": header.frames,
        "gops": len(gops),
        "gop_length": header.gop_length,
        "scene_cuts": header.shots,
        "enlarge": not header.own_size,
        "refine": header.refine,
        "q": header.q,
        "target": header.target or None,
        "policy": header.policy or None,
        "codecs": dict(Counter(record.codec for record in reader.gops())) if verified else None,
        "payload_bytes": payload,
        "bpp": 8 * payload / (frames * header.width * header.height) if frames else None,
        "passthrough_bytes": reader.index.passthrough_bytes,
        "model_id": header.model_id,
        "preset": header.preset,
        "weights_sha256": header.weights_sha256,
        "creator": header.creator,
        "archive_version": header.archive_version,
        "replaces": header.replaces or None,
        "verified": "every checksum" if verified else "header and index",
    }
