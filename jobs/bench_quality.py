"""Measures quality against rate: S2VC beside classical codecs on the same pictures, from real bytes.

Owns the measuring: clips in, rows and BD-rates out. Our rate counts the whole archive (header, index and
checksums included), read back and decoded from its bytes; the anchors' rates count their elementary streams.
Classical rows are kept on disk by everything that decides them. How results look is ``bench_report``'s part.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from jobs.bench_anchors import Anchor, Coded
from jobs.bench_bd import BdRate, bd_rate
from jobs.bench_clips import Clip, ClipPolicy, load_clip
from s2vc_model.bitstream import EncodedGop
from s2vc_model.metrics import METRICS, MetricResult, measure
from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord, write_archive
from s2vc_ray.errors import ConfigError, SourceError
from s2vc_ray.values import ColourTags
from s2vc_ray.worker import LoadedCodec

OURS = "s2vc"
_CACHE_VERSION = 1


@dataclass(frozen=True, slots=True)
class QualityOptions:
    """What one quality run measures.

    Attributes:
        qs: our quality indices, 0..63.
        gop: frames per GOP, for every codec.
        metrics: keys of ``METRICS``.
        policy: which pictures of a clip.
        sample: measure at most this many frames per clip; None measures all.
        cache: folder of kept classical rows; None keeps none.
    """

    qs: tuple[int, ...] = (8, 16, 24, 32, 40, 48, 56, 63)
    gop: int = 32
    metrics: tuple[str, ...] = ("psnr", "ms_ssim", "lpips_alex")
    policy: ClipPolicy = field(default_factory=ClipPolicy)
    sample: int | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not self.qs or any(not 0 <= q <= 63 for q in self.qs):
            raise ConfigError(f"quality indices must be 0..63, not {self.qs}")
        if self.gop < 1:
            raise ConfigError(f"a GOP has at least 1 frame, not {self.gop}")
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ConfigError(f"unknown metrics {unknown}; known: {', '.join(METRICS)}")


@dataclass(frozen=True, slots=True)
class Row:
    """One codec at one setting on one clip.

    ``point`` is our q or the anchor's CRF; ``means`` and ``worsts`` map metric names to scores over the clip.
    """

    clip: str
    codec: str
    point: int
    width: int
    height: int
    frames: int
    bytes: int
    payload_bytes: int
    bpp: float
    kbps: float
    encode_fps: float
    decode_fps: float
    means: Mapping[str, float]
    worsts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """BD-rate of our codec against one anchor on one clip by one metric."""

    clip: str
    anchor: str
    metric: str
    bd: BdRate


@dataclass(frozen=True, slots=True)
class QualityResult:
    """Everything one run found; ``skipped`` maps clips that could not be read to the reason."""

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    skipped: Mapping[str, str]


def run_quality(
    paths: Sequence[Path],
    codec: LoadedCodec,
    anchors: Sequence[Anchor],
    options: QualityOptions,
    report: Callable[[Row], None] = lambda row: None,
) -> QualityResult:
    """Measure every clip with every codec, metrics on the codec's device.

    ``report`` sees each row as it is finished. Unreadable clips are left out and named in the result.

    Raises:
        ModelError: our codec failed, or decoded something else than it encoded.
    """
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            clip = load_clip(path, options.policy)
        except SourceError as error:
            skipped[path.name] = str(error)
            continue
        for row in _rows(clip, codec, anchors, options):
            rows.append(row)
            report(row)
    return QualityResult(tuple(rows), tuple(compare(rows, options.metrics)), skipped)


def compare(rows: Sequence[Row], metrics: Sequence[str]) -> Iterator[Comparison]:
    """BD-rates of our rows against each anchor's rows of the same clip, in the rows' order."""
    curves: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        curves.setdefault(row.clip, {}).setdefault(row.codec, []).append(row)
    for clip, codecs in curves.items():
        for anchor in (name for name in codecs if name != OURS and OURS in codecs):
            for metric in metrics:
                ours, theirs = ([(r.bpp, r.means[metric]) for r in codecs[name]] for name in (OURS, anchor))
                bd = bd_rate(theirs, ours, METRICS[metric].higher_is_better)
                yield Comparison(clip, anchor, metric, bd)


def code_with_s2vc(clip: Clip, codec: LoadedCodec, q: int, gop: int) -> Coded:
    """The clip through our codec and a whole archive in memory, decoded from the archive's bytes."""
    started = time.perf_counter()
    gops = [clip.frames[at : at + gop] for at in range(0, len(clip.frames), gop)]
    # Lockstep takes GOPs of any length together, so a shorter last one costs nothing extra.
    payloads = [encoded.to_payload() for encoded in codec.encode_gops(gops, q)]
    encoded_at = time.perf_counter()
    archive = _archive(clip, codec, q, gop, payloads)
    reader = ArchiveReader(archive)
    restored = [EncodedGop.from_payload(reader.gop(index).payload) for index in range(len(reader))]
    decoding = time.perf_counter()
    decoded = np.concatenate(codec.decode_gops(restored))
    finished = time.perf_counter()
    return Coded(len(archive), sum(map(len, payloads)), decoded, encoded_at - started, finished - decoding)


def _rows(
    clip: Clip, codec: LoadedCodec, anchors: Sequence[Anchor], options: QualityOptions
) -> Iterator[Row]:
    device = str(codec.device)
    for q in options.qs:
        coded = code_with_s2vc(clip, codec, q, options.gop)
        yield _row(clip, OURS, q, coded, _scores(clip, coded, options, device))
    for anchor in anchors:
        for point in anchor.ladder:
            yield _kept(clip, anchor, point, options, device)


def _scores(clip: Clip, coded: Coded, options: QualityOptions, device: str) -> dict[str, MetricResult]:
    return measure(clip.frames, coded.decoded, options.metrics, options.sample, device)


def _row(clip: Clip, codec: str, point: int, coded: Coded, scores: Mapping[str, MetricResult]) -> Row:
    count, height, width, _ = clip.frames.shape
    return Row(
        clip=clip.name,
        codec=codec,
        point=point,
        width=width,
        height=height,
        frames=count,
        bytes=coded.bytes,
        payload_bytes=coded.payload_bytes,
        bpp=8 * coded.bytes / clip.pixels,
        kbps=8 * coded.bytes * float(clip.rate) / count / 1000,
        encode_fps=count / coded.encode_seconds,
        decode_fps=count / coded.decode_seconds,
        means={name: result.mean for name, result in scores.items()},
        worsts={name: result.worst for name, result in scores.items()},
    )


def _kept(clip: Clip, anchor: Anchor, point: int, options: QualityOptions, device: str) -> Row:
    """An anchor's row from the cache, else measured and kept there."""
    identity = {
        "cache": _CACHE_VERSION,
        "clip": clip.sha256,
        "rate": str(clip.rate),
        "version": anchor.version,
        "settings": dict(anchor.settings(point, options.gop)),
        "metrics": sorted(options.metrics),
        "sample": options.sample,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    path = options.cache / f"{key}.json" if options.cache else None
    if path and path.is_file():
        return Row(**{**json.loads(path.read_bytes()), "clip": clip.name, "codec": anchor.name})
    coded = anchor.code(clip.frames, clip.rate, point, options.gop)
    row = _row(clip, anchor.name, point, coded, _scores(clip, coded, options, device))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(asdict(row)))
        os.replace(partial, path)
    return row


def _archive(clip: Clip, codec: LoadedCodec, q: int, gop: int, payloads: Sequence[bytes]) -> bytes:
    count, height, width, _ = clip.frames.shape
    header = ArchiveHeader(
        model_id=codec.model_id,
        weights_sha256=codec.weights_sha256,
        preset=codec.preset,
        width=width,
        height=height,
        time_base=Fraction(1, 1) / clip.rate,
        colour=ColourTags(),
        rotation=0,
        sample_aspect=Fraction(1),
        average_rate=clip.rate,
        last_duration=1,
        frames=count,
        gop_length=gop,
        q=q,
        source_name=clip.name,
        source_size=clip.frames.nbytes,
        source_sha256=clip.sha256,
        creator="s2vc-ray bench",
    )
    records = []
    for index, payload in enumerate(payloads):
        first = index * gop
        pts = tuple(range(first, min(first + gop, count)))
        records.append(GopRecord(index, first, q, pts, payload))
    out = io.BytesIO()
    write_archive(out, header, records)
    return out.getvalue()
