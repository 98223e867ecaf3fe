"""What is staged of a video: each GOP's coded payload and measurement, as one object under a deterministic key.

Workers put it, the commit reads it back, and a resumed job finds it by listing: being one object, it is
there whole or not at all. Key: ``_s2vc/staging/<video id>/<fingerprint>/<gop>.gop``. The fingerprint names
the source's bytes, what decides the payload's bytes (`JobConfig.config_hash`) and what was measured, so a
staged GOP is never taken for another. Layout: ``magic | u32 length of JSON | u32 CRC-32C of JSON | JSON |
payload``, little-endian. The frames' digests are in the JSON but not in `StagedGop`. Knows nothing of Ray, torch or
archives.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from sys import intern
from typing import Any

from s2vc_ray.config import MetricPolicy
from s2vc_ray.errors import StorageError
from s2vc_ray.fixity import crc32c
from s2vc_ray.risk import Risk
from s2vc_ray.times import Times
from s2vc_ray.values import FrameDigest

STAGING = "_s2vc/staging"
_LAYOUT = 2
_MAGIC = b"S2GOP\x002\n"
_HEAD = struct.Struct("<II")
_OWN = frozenset({"key", "payload_sha256"})
"""Texts that each GOP has for itself."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One quality metric over the measured frames of a GOP.

    ``p5`` is its 5th percentile on the bad side, ``worst_frame`` counts in the GOP from 0; None where an older version
    staged the GOP.
    """

    name: str
    mean: float
    worst: float
    frames: int
    p5: float | None = None
    worst_frame: int | None = None


@dataclass(frozen=True, slots=True)
class StagedGop:
    """What is known of one coded GOP besides its payload.

    Attributes:
        video_id, index, key: which GOP, and where its payload is staged.
        pts: time stamp of each coded frame, in the video's time base.
        frames_expected: frames the container promised; ``len(pts)`` were coded.
        frames_corrupt: coded frames that the source's decoder marked as damaged.
        frames_interlaced: coded frames that it flagged as interlaced.
        strayed: seeking in the source led elsewhere than planning had been; see `s2vc_ray.seeking`.
        width, height: true frame size in pixels.
        q: of ``codec``: S2VC's quality index, or AV1's constant rate factor. ``q_fine``: quarters of the former above
            it. ``scale``: the place in `s2vc_model.picture_scale.SCALES` that its pictures were coded at.
        payload_bytes, payload_sha256: size and digest of the payload.
        bits_i, bits_p: payload bits of the intra frame (with the GOP's own header) and of the inter frames.
        verified: ``decoded`` when the payload itself was decoded again here, else ``no``.
        encode_seconds, decode_seconds: codec time, a lockstep batch's shared evenly among its GOPs.
        source_seconds: time to decode the source's frames.
        target: what ``q`` was searched for (`JobConfig.target_text`), empty where it was given. ``target_value`` is
            what this GOP was held to: its floor, or its most bits per pixel; ``target_met`` whether it holds, measured.
        probes: how many q it was coded at. ``encode_seconds`` are of all of them, measured and all.
        codec: which codec reads the payload; see `s2vc_ray.gop_decoder`.
        risk: what its measured frames show at their worst place; None where nothing was measured.
        policy_sha256, policy_rule: the policy that it was coded under, and which of its rules applied; None without.
    """

    video_id: str
    index: int
    key: str
    pts: Sequence[int]
    frames_expected: int
    frames_corrupt: int
    width: int
    height: int
    q: int
    payload_bytes: int
    payload_sha256: str
    bits_i: int
    bits_p: int
    metrics: tuple[Metric, ...]
    metric_policy: str
    verified: str
    model_id: str
    weights_sha256: str
    device: str
    torch: str
    source_seconds: float
    encode_seconds: float
    decode_seconds: float
    attempts: int
    frames_interlaced: int = 0
    codec: str = "s2vc"
    target: str = ""
    target_value: float | None = None
    target_met: bool | None = None
    probes: int = 1
    risk: Risk | None = None
    policy_sha256: str | None = None
    policy_rule: str | None = None
    strayed: bool = False
    q_fine: int = 0
    scale: int = 0

    @property
    def frames(self) -> int:
        """Number of coded frames."""
        return len(self.pts)

    @property
    def bpp(self) -> float:
        """Payload bits per true pixel."""
        return 8 * self.payload_bytes / (self.width * self.height * self.frames)


@dataclass(frozen=True, slots=True)
class StagedObject:
    """All that is staged of one GOP. ``digests`` are of its source frames, one for each of ``gop.pts``."""

    gop: StagedGop
    payload: bytes
    digests: tuple[FrameDigest, ...]


def staging_prefix(video_id: str, source_sha256: str, config_hash: str, metrics: MetricPolicy) -> str:
    """Key prefix of a video's staged GOPs, without a trailing slash."""
    measured = f"{_LAYOUT} {metrics} {sorted(metrics.names)}{' faces' if metrics.faces else ''}"
    kind = hashlib.sha256(measured.encode()).hexdigest()[:8]
    return f"{STAGING}/{video_id}/{source_sha256[:16]}-{config_hash}-{kind}"


def staging_key(prefix: str, index: int) -> str:
    """Key of one staged GOP."""
    return f"{prefix}/{index:06d}.gop"


def gop_fields(gop: StagedGop) -> dict[str, Any]:
    """``gop`` as JSON has it."""
    return {**asdict(gop), "pts": [*gop.pts]}


def gop_of(fields: Mapping[str, Any]) -> StagedGop:
    """The inverse of `gop_fields`; what an older version did not know has its default.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: they are not what that makes.
    """
    # What all GOPs of a video say is held once.
    fields = {
        name: said if name in _OWN or not isinstance(said, str) else intern(said)
        for name, said in fields.items()
    }
    metrics = tuple(Metric(**metric) for metric in fields["metrics"])
    risk = Risk(**fields["risk"]) if fields.get("risk") else None
    return StagedGop(**{**fields, "pts": Times(fields["pts"]), "metrics": metrics, "risk": risk})


def pack_staged(staged: StagedObject) -> bytes:
    """The staged object's bytes."""
    digests = [[one.size, one.md5] for one in staged.digests]
    head = json.dumps({**gop_fields(staged.gop), "digests": digests}, separators=(",", ":")).encode()
    return b"".join((_MAGIC, _HEAD.pack(len(head), crc32c(head)), head, staged.payload))


def unpack_staged(data: bytes, key: str) -> StagedObject:
    """Parse and check a staged object.

    Raises:
        StorageError: the object under ``key`` is not what `pack_staged` wrote.
    """
    at = len(_MAGIC) + _HEAD.size
    if data[: len(_MAGIC)] != _MAGIC or len(data) < at:
        raise StorageError(f"staged GOP {key} is damaged: delete it and run the job again")
    length, crc = _HEAD.unpack_from(data, len(_MAGIC))
    head, payload = data[at : at + length], data[at + length :]
    if crc32c(head) != crc:
        raise StorageError(f"staged GOP {key} has a damaged header: delete it and run the job again")
    try:
        fields = json.loads(head)
        digests = tuple(FrameDigest(size, md5) for size, md5 in fields.pop("digests"))
        gop = gop_of(fields)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise StorageError(
            f"staged GOP {key} has an unreadable header: delete it and run the job again"
        ) from error
    if hashlib.sha256(payload).hexdigest() != gop.payload_sha256 or len(digests) != gop.frames:
        raise StorageError(f"staged GOP {key} fails its checksum: delete it and run the job again")
    return StagedObject(gop, payload, digests)
