"""What a verification finds, as values: a verdict on each archive, and a report of them all."""

from __future__ import annotations

from dataclasses import dataclass, field

DEPTHS = ("structure", "bytes", "symbols", "pixels")

OUTCOMES = {
    "ok": ("everything that was looked at is as it was committed", ""),
    "not measured": (
        "sound, and decodes; its pictures were not compared with the source's",
        "give --source the folder or prefix where the sources are",
    ),
    "failed": (
        "the manifest's latest word on the video is a failure",
        "mend what the error names and run s2vc compress again",
    ),
    "missing": (
        "described in the manifest, but not there",
        "restore it from a copy, or compress its source again",
    ),
    "unknown": (
        "there, but the manifest does not know it",
        "run the compress job again to have it described, or move it away; while a job runs, look again later",
    ),
    "truncated": (
        "shorter than when it was committed",
        "restore it from a copy, or s2vc decompress --salvage it",
    ),
    "damaged": ("bytes of it have changed", "restore it from a copy, or s2vc decompress --salvage it"),
    "exchanged": (
        "sound in itself, but not the archive that the manifest describes under this name",
        "find out who put it there; put back the archive with the SHA-256 of the manifest",
    ),
    "frame list": (
        "its list of source frames (.framemd5) is missing or changed",
        "restore it from a copy, or make it again from the source with ffmpeg -f framemd5",
    ),
    "symbols": (
        "every CRC holds, but it does not decode to the symbols that were coded",
        "keep it and report it: it was written wrongly, or this installation decodes wrongly",
    ),
    "measurement": (
        "it decodes, but the frames or figures are not those of the manifest",
        "keep both, and compare on the device that the manifest names",
    ),
    "other model": (
        "coded by another model than the one given",
        "give the directory of the right one with --model",
    ),
    "unreadable": ("could not be read", "see what the store says, and verify again"),
    "bag": (
        "manifest-sha256.txt is missing, or does not say what the manifest says",
        "find out who changed it; s2vc bag DST makes it anew from the manifest",
    ),
}
"""Every outcome: what it means, and what to do."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was done to an archive: an event's type (`s2vc_ray.provenance`), its outcome, and details."""

    kind: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one archive, or of the bag manifest.

    Attributes:
        key: its key under the destination, or the URI of an archive by itself.
        outcome: one of `OUTCOMES`.
        faults: what is wrong, one line each.
        sha256: of its bytes as they are now; None when not all of them were read.
        bytes, gops, frames: read; checked; decoded.
        checks: what was done, for the record.
    """

    key: str
    outcome: str
    faults: tuple[str, ...] = ()
    sha256: str | None = None
    bytes: int = 0
    gops: int = 0
    frames: int = 0
    checks: tuple[Check, ...] = ()


@dataclass(slots=True)
class VerifyReport:
    """A verification.

    Attributes:
        target, depth, sample: what was asked for; ``sample`` is a share of the videos, 1.0 for all.
        counts: verdicts by outcome.
        problems: verdicts other than ok, up to the limit; ``counts`` has them all.
        events: key of the events written; None when none were.
    """

    target: str
    depth: str
    sample: float
    counts: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    gops: int = 0
    frames: int = 0
    seconds: float = 0.0
    problems: list[Verdict] = field(default_factory=list)
    events: str | None = None

    @property
    def clean(self) -> bool:
        """Whether all that was asked for was done and found good."""
        return not set(self.counts) - {"ok"}

    def add(self, verdict: Verdict, limit: int) -> None:
        """Count one more; 0 is no limit."""
        self.counts[verdict.outcome] = self.counts.get(verdict.outcome, 0) + 1
        self.bytes += verdict.bytes
        self.gops += verdict.gops
        self.frames += verdict.frames
        if verdict.outcome != "ok" and (not limit or len(self.problems) < limit):
            self.problems.append(verdict)
