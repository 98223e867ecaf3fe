"""What a compress job reports: values for a person's summary and for ``--json``."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class VideoResult:
    """One source's end.

    ``status`` is ``ok``, ``partial`` (what could be read of a truncated or damaged source was compressed),
    ``skipped`` (its archive was there already), ``excluded`` (by the policy; ``notes`` say why) or ``failed``.
    ``error`` says what is wrong with the source, also when a partial archive is skipped; ``notes`` what was decided
    about its pictures, as in the archive's header.
    ``frames_lost`` counts frames that the container promised and that are not in the archive; ``pixels`` is true pixels
    of all coded frames. ``targets_missed`` counts the archive's GOPs that do not meet their target. Sizes are in bytes.
    """

    uri: str
    name: str
    status: str
    archive: str | None = None
    source_bytes: int | None = None
    archive_bytes: int | None = None
    payload_bytes: int = 0
    frames: int = 0
    frames_lost: int = 0
    gops: int = 0
    pixels: int = 0
    targets_missed: int = 0
    error_class: str | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def bpp(self) -> float | None:
        """Payload bits per true pixel; None when nothing was coded."""
        return 8 * self.payload_bytes / self.pixels if self.pixels else None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a job. Sizes are in bytes and, like frames, GOPs and pixels, of what this run compressed.

    ``troubled`` counts the sources with an error: failed ones, partial ones, and skipped ones whose archive is partial.
    ``targets_missed`` counts GOPs of all archives, those of skipped sources too.
    """

    ok: int = 0
    partial: int = 0
    skipped: int = 0
    failed: int = 0
    excluded: int = 0
    troubled: int = 0
    source_bytes: int = 0
    archive_bytes: int = 0
    payload_bytes: int = 0
    frames: int = 0
    gops: int = 0
    pixels: int = 0
    targets_missed: int = 0

    def plus(self, video: VideoResult) -> Totals:
        """With one more video."""
        ended = {video.status: getattr(self, video.status) + 1}
        out = replace(
            self,
            **ended,
            troubled=self.troubled + (video.error_class is not None),
            targets_missed=self.targets_missed + video.targets_missed,
        )
        if video.status not in ("ok", "partial"):
            return out
        return replace(
            out,
            source_bytes=self.source_bytes + (video.source_bytes or 0),
            archive_bytes=self.archive_bytes + (video.archive_bytes or 0),
            payload_bytes=self.payload_bytes + video.payload_bytes,
            frames=self.frames + video.frames,
            gops=self.gops + video.gops,
            pixels=self.pixels + video.pixels,
        )


class Tally:
    """Adds up a job's results and keeps the first of them, those with an error or a missed target before all others.

    A report of a million videos is not held in memory; the manifest has all of them.
    """

    def __init__(self, keep: int = 10_000) -> None:
        self.totals = Totals()
        self._keep = keep
        self._troubled: dict[int, VideoResult] = {}
        self._clean: dict[int, VideoResult] = {}

    def add(self, place: int, video: VideoResult) -> None:
        """Count the result of the source at ``place`` in the job's list."""
        self.totals = self.totals.plus(video)
        troubled = bool(video.error_class or video.targets_missed)
        kept = self._troubled if troubled else self._clean
        if len(self._troubled) + len(self._clean) < self._keep:
            kept[place] = video
        elif troubled and self._clean:
            self._clean.popitem()
            kept[place] = video

    def videos(self) -> tuple[VideoResult, ...]:
        """The results kept, in the order of their sources."""
        return tuple(video for _, video in sorted({**self._troubled, **self._clean}.items()))


@dataclass(frozen=True, slots=True)
class JobReport:
    """A finished job: its id, its `JobConfig.config_hash`, wall seconds, sums, and its sources' results.

    ``videos`` holds at most 10,000 results, those with an error first; `totals` counts all.
    """

    job: str
    config_hash: str
    seconds: float
    totals: Totals
    videos: tuple[VideoResult, ...]

    def count(self, status: str) -> int:
        """How many sources ended so."""
        number: int = getattr(self.totals, status)
        return number

    @property
    def clean(self) -> bool:
        """Whether every source is compressed in full, and as it was asked for."""
        return not self.totals.troubled and not self.totals.targets_missed


@dataclass(frozen=True, slots=True)
class FlowDepths:
    """How much lies in each stage of a running job: what tells which one is the bottleneck.

    Attributes:
        planning: sources being probed, or probed and waiting to be coded.
        queued: GOPs of opened videos that no worker has yet.
        coding: batches with workers.
        window: batches that workers would take.
        committing: videos whose archive is being put together.
    """

    planning: int
    queued: int
    coding: int
    window: int
    committing: int
