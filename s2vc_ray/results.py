"""What a compress job reports: values for a person's summary and for ``--json``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VideoResult:
    """One source's end.

    ``status`` is ``ok``, ``partial`` (what could be read of a truncated or damaged source was compressed),
    ``skipped`` (its archive was there already) or ``failed``. ``error`` says what is wrong with the source,
    also when a partial archive is skipped. ``frames_lost`` counts frames that the container promised and that
    are not in the archive; ``pixels`` is true pixels of all coded frames. Sizes are in bytes.
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
    error_class: str | None = None
    error: str | None = None

    @property
    def bpp(self) -> float | None:
        """Payload bits per true pixel; None when nothing was coded."""
        return 8 * self.payload_bytes / self.pixels if self.pixels else None


@dataclass(frozen=True, slots=True)
class JobReport:
    """A finished job: its id, its `JobConfig.config_hash`, wall seconds, and one result per source."""

    job: str
    config_hash: str
    seconds: float
    videos: tuple[VideoResult, ...]

    def count(self, status: str) -> int:
        """How many sources ended so."""
        return sum(video.status == status for video in self.videos)

    @property
    def clean(self) -> bool:
        """Whether every source is compressed in full."""
        return not any(video.error_class for video in self.videos)
