"""Measures quality against rate: S2VC beside classical codecs on the same pictures, from real bytes.

Owns the measuring: clips in, rows and BD-rates out. Our rate counts the whole archive (header, index and
checksums included), read back and decoded from its bytes; the anchors' rates count their elementary streams.
Rows are kept on disk by everything that decides them (``bench_rows``). How results look is
``bench_report``'s part.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import s2vc_model
import s2vc_ray.archive
import s2vc_ray.gop_decoder
import s2vc_ray.shots
from jobs.bench_bd import BdRate, bd_rate
from jobs.bench_clips import Clip, ClipPolicy, load_clip
from jobs.bench_coded import Anchor, Coded
from jobs.bench_rows import OURS, Row, RowCache
from s2vc_model.metrics import METRICS, MetricResult, measure
from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord, write_archive
from s2vc_ray.errors import ConfigError, SourceError
from s2vc_ray.gop_decoder import AnyGop, codec_name, coded_gop, iter_decode
from s2vc_ray.shots import cut, joined
from s2vc_ray.values import ColourTags
from s2vc_ray.worker import LoadedCodec

ANCHOR_GOPS: Mapping[str, tuple[bool, ...]] = {"both": (True, False), "clip": (True,), "default": (False,)}
"""Choices of GOPs for the anchors: for each run, whether it takes our GOP length (else the encoder's own)."""
COUNTED: Mapping[str, Callable[[Row], float]] = {
    "archive": lambda row: row.bpp,
    "payload": lambda row: row.payload_bpp,
}
"""Ways to count our rate, in bpp: with the archive around the payloads, and without. Anchors have no archive."""


@dataclass(frozen=True, slots=True)
class QualityOptions:
    """What one quality run measures.

    Attributes:
        qs: our quality indices, 0..63.
        gop: frames per GOP of our codec, and of the anchors as ``anchor_gop`` says.
        anchor_gop: a key of ``ANCHOR_GOPS``: "clip" holds the anchors to ``gop`` too, "default" leaves GOPs to
            them, "both" runs each twice.
        metrics: keys of ``METRICS``.
        policy: which pictures of a clip.
        sample: measure at most this many frames per clip; None measures all.
        cache: folder of kept rows; None keeps none.
        refine: by how many steps the codec was told to improve first pictures; for the key of kept rows.
    """

    qs: tuple[int, ...] = (8, 16, 24, 32, 40, 48, 56, 63)
    gop: int = 32
    anchor_gop: str = "both"
    metrics: tuple[str, ...] = ("psnr", "ms_ssim", "lpips_alex")
    policy: ClipPolicy = field(default_factory=ClipPolicy)
    sample: int | None = None
    cache: Path | None = None
    refine: int = 0

    def __post_init__(self) -> None:
        if not self.qs or any(not 0 <= q <= 63 for q in self.qs):
            raise ConfigError(f"quality indices must be 0..63, not {self.qs}")
        if self.gop < 1:
            raise ConfigError(f"a GOP has at least 1 frame, not {self.gop}")
        if self.anchor_gop not in ANCHOR_GOPS:
            raise ConfigError(f"unknown anchor GOPs {self.anchor_gop!r}; known: {', '.join(ANCHOR_GOPS)}")
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ConfigError(f"unknown metrics {unknown}; known: {', '.join(METRICS)}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """BD-rate of our codec against one anchor on one clip by one metric; ``counted`` is a key of ``COUNTED``."""

    counted: str
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
        ModelError: our codec failed, or decoded something else than it encoded; or a metric or anchor lacks its
            weights or program, found out before anything is measured.
    """
    _check_tools(anchors, options, str(codec.device))
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            for row in _rows(load_clip(path, options.policy), codec, anchors, options):
                rows.append(row)
                report(row)
        except SourceError as error:
            skipped[path.name] = str(error)
    return QualityResult(tuple(rows), tuple(compare(rows, options.metrics)), skipped)


def compare(rows: Sequence[Row], metrics: Sequence[str]) -> Iterator[Comparison]:
    """BD-rates of our rows against each anchor's rows of the same clip, in the rows' order.

    All of them with whole archives counted, then again with payloads alone.
    """
    curves: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        curves.setdefault(row.clip, {}).setdefault(row.codec, []).append(row)
    for counted, rate in COUNTED.items():
        for clip, codecs in curves.items():
            for anchor in (name for name in codecs if name != OURS and OURS in codecs):
                for metric in metrics:
                    ours, theirs = ([(rate(r), r.means[metric]) for r in codecs[n]] for n in (OURS, anchor))
                    bd = bd_rate(theirs, ours, METRICS[metric].higher_is_better)
                    yield Comparison(counted, clip, anchor, metric, bd)


def code_with_s2vc(clip: Clip, codec: LoadedCodec, q: int, gop: int) -> Coded:
    """The clip through our codec and a whole archive in memory, decoded from the archive's bytes."""
    started = time.perf_counter()
    gops = [clip.frames[at : at + gop] for at in range(0, len(clip.frames), gop)]
    shots = [cut(frames) for frames in gops]
    # Lockstep takes GOPs of any length together, so a shorter last one costs nothing extra.
    coded = joined(codec.encode_gops([shot for own in shots for shot in own], q), map(len, shots))
    payloads = sum(len(one.to_payload()) for one in coded)
    encoded_at = time.perf_counter()
    archive = _archive(clip, codec, q, gop, coded)
    reader = ArchiveReader(archive)
    restored = [coded_gop(record, reader.header) for record in reader.gops()]
    decoding = time.perf_counter()
    pictures: list[list[npt.NDArray[np.uint8]]] = [[] for _ in restored]
    for shown in iter_decode(codec, restored):
        for number, picture in shown.items():
            pictures[number].append(picture)
    decoded = np.stack([picture for own in pictures for picture in own])
    finished = time.perf_counter()
    return Coded(len(archive), payloads, decoded, encoded_at - started, finished - decoding)


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """SHA-256 of the source of our codec and archive: rows of other code must not be taken for this code's."""
    digest = hashlib.sha256()
    for package, left_out in ((s2vc_model, ("metrics",)), (s2vc_ray.archive, ())):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            if path.relative_to(root).parts[0] not in left_out:
                digest.update(path.read_bytes())
    for module in (s2vc_ray.shots, s2vc_ray.gop_decoder):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def anchor_label(anchor: Anchor, gop: int | None) -> str:
    """An anchor's name in tables: which GOPs it was given."""
    return f"{anchor.name}, GOP {gop}" if gop else f"{anchor.name}, default GOP"


def _check_tools(anchors: Sequence[Anchor], options: QualityOptions, device: str) -> None:
    """Fail in the first second rather than after the first clip's encodes."""
    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    measure(grey, grey, options.metrics, device=device)
    for anchor in anchors:
        _ = anchor.version


def _rows(
    clip: Clip, codec: LoadedCodec, anchors: Sequence[Anchor], options: QualityOptions
) -> Iterator[Row]:
    device = str(codec.device)
    about_us = {
        "model_id": codec.model_id,
        "weights": codec.weights_sha256,
        "preset": codec.preset,
        "device": device,
        "torch": torch.__version__,
        "code": code_fingerprint(),
        "gop": options.gop,
        "refine": options.refine,
    }
    for q in options.qs:
        job = _Job(clip, OURS, q, {**about_us, "q": q}, partial(code_with_s2vc, clip, codec, q, options.gop))
        yield _kept(job, options, device)
    for anchor in anchors:
        for gop in (options.gop if ours else None for ours in ANCHOR_GOPS[options.anchor_gop]):
            for point in anchor.ladder:
                identity = {"version": anchor.version, "settings": dict(anchor.settings(point, gop))}
                code = partial(anchor.code, clip.frames, clip.rate, point, gop)
                yield _kept(_Job(clip, anchor_label(anchor, gop), point, identity, code), options, device)


@dataclass(frozen=True, slots=True)
class _Job:
    """One point to measure: ``identity`` is what decides its bytes besides the clip, ``code`` makes them."""

    clip: Clip
    label: str
    point: int
    identity: Mapping[str, object]
    code: Callable[[], Coded]


def _kept(job: _Job, options: QualityOptions, device: str) -> Row:
    """The row from the cache, coded again only if it lacks a metric; what is measured is kept."""
    cache = RowCache(options.cache)
    clip = job.clip
    identity = {**job.identity, "clip": clip.sha256, "rate": str(clip.rate), "sample": options.sample}
    row = cache.get(identity)
    missing = [name for name in options.metrics if row is None or name not in row.means]
    if row is None or missing:
        coded = job.code()
        if row is not None and (row.bytes, row.payload_bytes) != (coded.bytes, coded.payload_bytes):
            row, missing = (
                None,
                list(options.metrics),
            )  # An encoder that is not deterministic: old scores lie.
        row = _merged(row, _row(job, coded, _scores(clip, coded, missing, options.sample, device)))
        cache.put(identity, row)
    means, worsts = ({n: scores[n] for n in options.metrics} for scores in (row.means, row.worsts))
    return replace(row, clip=clip.name, codec=job.label, means=means, worsts=worsts)


def _merged(old: Row | None, new: Row) -> Row:
    if old is None:
        return new
    return replace(new, means={**old.means, **new.means}, worsts={**old.worsts, **new.worsts})


def _scores(
    clip: Clip, coded: Coded, metrics: Sequence[str], sample: int | None, device: str
) -> dict[str, MetricResult]:
    try:
        return measure(clip.frames, coded.decoded, metrics, sample, device, float(clip.rate))
    except ValueError as error:
        raise SourceError(f"{clip.name} cannot be measured: {error}") from error


def _row(job: _Job, coded: Coded, scores: Mapping[str, MetricResult]) -> Row:
    clip = job.clip
    count, height, width, _ = clip.frames.shape
    return Row(
        clip=clip.name,
        codec=job.label,
        point=job.point,
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


def _archive(clip: Clip, codec: LoadedCodec, q: int, gop: int, coded: Sequence[AnyGop]) -> bytes:
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
    for index, one in enumerate(coded):
        first = index * gop
        pts = tuple(range(first, min(first + gop, count)))
        records.append(GopRecord(index, first, q, pts, one.to_payload(), codec_name(one)))
    out = io.BytesIO()
    write_archive(out, header, records)
    return out.getvalue()
