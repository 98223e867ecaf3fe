"""The frozen values that cross the job's seams. Plain data: no I/O, no torch, no Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from s2vc_model.bitstream import EncodedGop


@dataclass(frozen=True, slots=True)
class ColourTags:
    """FFmpeg's integer colour codes of a stream (2 = unspecified; range 1 = limited, 2 = full)."""

    range: int = 0
    primaries: int = 2
    transfer: int = 2
    matrix: int = 2


Durations: TypeAlias = tuple[tuple[int, int], ...]
"""(pts, duration) of frames that are shown for less than the time to the next one, ascending."""

MOST_DURATIONS = 1024
"""Of those that an archive holds."""

DisplayMatrix: TypeAlias = tuple[int, ...]
"""Nine 32-bit integers: the transform from picture to display as MP4 stores it (ISO/IEC 14496-12, 8.3.2)."""

MasteringDisplay: TypeAlias = tuple[Fraction, ...]
"""Ten numbers of SMPTE ST 2086: x and y of red, green, blue and white; least and greatest luminance in cd/m².
All eight, or both, are 0 where they are unknown."""

ContentLight: TypeAlias = tuple[int, ...]
"""MaxCLL and MaxFALL in cd/m² (CTA-861.3)."""

FIELD_ORDERS = ("unknown", "progressive", "tt", "bb", "tb", "bt", "interlaced")
"""FFmpeg's names, at its AVFieldOrder codes: which field is coded first, then which is shown first (t top, b
bottom). ``interlaced`` is one whose order nobody tells."""


@dataclass(frozen=True, slots=True)
class PictureTags:
    """What a player must know of the pictures besides size, aspect and colour; None is what the source does not say."""

    field_order: str = "unknown"
    display_matrix: DisplayMatrix | None = None
    mastering_display: MasteringDisplay | None = None
    content_light: ContentLight | None = None


UNTAGGED = PictureTags()


@dataclass(frozen=True, slots=True)
class FrameDigest:
    """What proves one decoded source frame: bytes of its native planes without padding, and their MD5 in hex."""

    size: int
    md5: str


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What probing one source found. Times are integers in ``time_base`` units.

    ``pts`` lists every expected frame in presentation order; ``keyframe_pts`` the seek points, ascending: both
    `s2vc_ray.times.Times` when they come from probing, or tuples.
    ``width``/``height`` are the coded picture's true size before rotation. ``last_duration`` is the last
    frame's duration (0 when unknown). ``frames_declared`` is how many frames the header announces (0 when it
    says nothing): more than ``pts`` holds when the file was cut short. ``bit_depth`` is that of the deepest
    component, 0 when unknown. ``other_videos`` are the source's further video streams, which are not coded,
    ``untimed`` how many frames have no time stamp and therefore no place among the others, ``not_kept``
    names what the pictures carry (captions, timecodes) that an archive does not hold. ``brief`` counts the frames
    that the container calls shorter than the time to the next one; ``durations`` are theirs, empty where they are too
    many to be kept. ``index_hidden``: the index of the AVI lies, and it was read as if there were none.
    ``encoder_note`` is a packet for decoders that begin elsewhere than at the beginning; see `s2vc_ray.seek_points`.

    ``trail`` and ``keyframe_trail`` are what was met on the way to each of ``pts`` and of ``keyframe_pts``
    (`s2vc_ray.trail`); empty where nobody looked.
    """

    width: int
    height: int
    time_base: Fraction
    pts: Sequence[int]
    keyframe_pts: Sequence[int]
    last_duration: int
    average_rate: Fraction | None
    rotation: int
    sample_aspect: Fraction
    pix_fmt: str
    codec: str
    container: str
    colour: ColourTags
    stream_index: int
    frames_declared: int = 0
    bit_depth: int = 0
    tags: PictureTags = UNTAGGED
    other_videos: tuple[int, ...] = ()
    untimed: int = 0
    not_kept: tuple[str, ...] = ()
    brief: int = 0
    durations: Durations = ()
    index_hidden: bool = False
    encoder_note: bytes = b""
    trail: Sequence[int] = ()
    keyframe_trail: Sequence[int] = ()

    @property
    def frames(self) -> int:
        """Number of expected frames."""
        return len(self.pts)


@dataclass(frozen=True, slots=True)
class GopSpec:
    """A reference to the frames of one GOP; never the frames themselves.

    ``pts`` are the expected frames' time stamps in presentation order; decoding starts at ``seek_pts``, the
    nearest seek point at or before ``pts[0]``. ``first_frame`` counts frames of the video from 0. ``trail`` is what
    must be met on the way from there to each of ``pts``, ``seek_trail`` what it goes on from; see `VideoInfo`,
    for ``index_hidden`` and ``encoder_note`` too.
    """

    source_uri: str
    video_id: str
    index: int
    first_frame: int
    pts: Sequence[int]
    seek_pts: int
    stream_index: int
    width: int
    height: int
    trail: Sequence[int] = ()
    seek_trail: int = 0
    index_hidden: bool = False
    encoder_note: bytes = b""

    @property
    def frames(self) -> int:
        """Number of expected frames."""
        return len(self.pts)


class GopCodec(Protocol):
    """The codec as the job sees it. ``s2vc_model.codec.S2vcCodec`` is the real one; tests use a fake.

    Frames are ``uint8`` RGB arrays of shape (T, H, W, 3). All GOPs of one call have one size and are
    coded in lockstep; their lengths may differ.
    """

    model_id: str
    weights_sha256: str
    reads: Sequence[str]
    """SHA-256 of the earlier weights whose streams it decodes too; see `s2vc_model.succession`."""

    def encode_gops(
        self, gops: Sequence[npt.NDArray[np.uint8]], q: float | Sequence[float], larger: bool | None = None
    ) -> list[EncodedGop]:
        """Code each GOP at quality index ``q`` (0..63, in quarters), one for all or one each.

        ``larger``: enlarged, or at their own size; None: as the model's rules say.
        """
        ...

    def decode_gops(self, gops: Sequence[EncodedGop]) -> list[npt.NDArray[np.uint8]]:
        """Decode each GOP to its frames."""
        ...

    def iter_decode(self, gops: Sequence[EncodedGop]) -> Iterator[dict[int, npt.NDArray[np.uint8]]]:
        """Decode in lockstep, frame index by frame index: each GOP's number -> its frame (H, W, 3).

        A GOP that has ended is left out. Holds one frame of each GOP at a time, not the GOPs.
        """
        ...

    def check_symbols(self, gops: Sequence[EncodedGop]) -> None:
        """Read every symbol and check all symbol checksums, without making a picture.

        Raises:
            ModelError: a GOP's symbols are not those that were coded.
        """
        ...
