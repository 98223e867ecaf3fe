"""What can be told of the GOPs of an archive that is there, when whoever coded them is gone.

Their measurements, where staging still holds these very payloads; else what the archive says, and that nothing was
measured. Knows nothing of the manifest or executors.
"""

from __future__ import annotations

from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord
from s2vc_ray.errors import ObjectMissing
from s2vc_ray.fixity import sha256_hex
from s2vc_ray.gop_decoder import coded_gop
from s2vc_ray.plan import PublishedVideo
from s2vc_ray.policy import policy_digest
from s2vc_ray.staging import StagedGop, staging_key, unpack_staged
from s2vc_ray.storage import Storage


def expected_frames(reader: ArchiveReader) -> list[int]:
    """Frames that each GOP should hold, as far as an archive tells: those up to the next one's first."""
    header, firsts = reader.header, [entry.first_frame for entry in reader.index.gops]
    ends = [*firsts[1:], header.frames]
    return [min(header.gop_length, end - first) for first, end in zip(firsts, ends, strict=True)]


def adopted_gop(
    record: GopRecord, expected: int, video: PublishedVideo, header: ArchiveHeader, storage: Storage
) -> StagedGop:
    """What is known of a GOP of an archive that is there: what is staged, if it is this payload, else what it says."""
    key = staging_key(video.staging, record.index)
    try:
        staged = unpack_staged(storage.read(key), key).gop
    except ObjectMissing:
        staged = None
    if staged is not None and staged.payload_sha256 == sha256_hex(record.payload):
        return staged
    return unmeasured(record, header, video_id=video.source.video_id, expected=expected)


def unmeasured(record: GopRecord, header: ArchiveHeader, *, video_id: str, expected: int) -> StagedGop:
    """What an archive alone tells of one of its GOPs, which should hold ``expected`` frames.

    Raises:
        ArchiveError: the payload is not what its codec makes.
    """
    parsed = coded_gop(record, header)
    return StagedGop(
        video_id=video_id,
        index=record.index,
        key="",
        pts=record.pts,
        frames_expected=expected,
        frames_corrupt=0,
        width=parsed.width,
        height=parsed.height,
        q=parsed.q,
        q_fine=parsed.fine,
        scale=parsed.scale,
        payload_bytes=len(record.payload),
        payload_sha256=sha256_hex(record.payload),
        bits_i=parsed.bits_i,
        bits_p=parsed.bits_p,
        metrics=(),
        metric_policy="none",
        verified="no",
        model_id=header.model_id,
        weights_sha256=header.weights_sha256,
        device="",
        torch="",
        source_seconds=0.0,
        encode_seconds=0.0,
        decode_seconds=0.0,
        attempts=0,
        target=header.target,
        codec=record.codec,
        # Of a later version's GOPs it is not known which were coded under it.
        policy_sha256=policy_digest(header.policy) if header.policy and header.archive_version == 1 else None,
    )
