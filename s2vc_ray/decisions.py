"""What becomes of a source's pictures when they are coded as progressive 8-bit RGB, said in words. Pure.

Each sentence is stored in the archive's header and shown to whoever runs the job: nothing is changed in silence.
"""

from __future__ import annotations

from av.video.format import VideoFormat

from s2vc_ray.values import VideoInfo

_HDR = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
"""FFmpeg's transfer codes (ITU-T H.273) of HDR."""


_ORDERS = {
    "tt": "top field first",
    "bt": "top field first",
    "bb": "bottom field first",
    "tb": "bottom field first",
}


def decisions(info: VideoInfo, *, deinterlaced: int | None = None) -> tuple[str, ...]:
    """The decisions taken for ``info``; none for progressive 8-bit pictures without company.

    4:2:0 and 4:2:2 chroma is brought to the picture's resolution; that goes for all video and is not said each time.

    Args:
        deinterlaced: how many pictures were made progressive; None where that was not asked for.
    """
    said = []
    if info.bit_depth > 8:
        said.append(f"{info.bit_depth}-bit samples ({info.pix_fmt}) rounded to 8 bits")
    if info.colour.transfer in _HDR:
        said.append(
            f"{_HDR[info.colour.transfer]} pictures coded as they are: no tone mapping, transfer kept"
        )
    which = _ORDERS.get(info.tags.field_order, "field order unknown")
    interlaced = info.tags.field_order not in ("unknown", "progressive")
    if deinterlaced:
        said.append(f"{deinterlaced} interlaced pictures ({which}) deinterlaced by FFmpeg's bwdif")
    elif interlaced and deinterlaced is None:
        said.append(f"interlaced pictures ({which}) coded as whole frames: not deinterlaced")
    elif interlaced:
        said.append(f"called interlaced ({which}) by no picture itself: not deinterlaced")
    if len(VideoFormat(info.pix_fmt).components) < 3 and not VideoFormat(info.pix_fmt).has_palette:
        said.append(f"gray ({info.pix_fmt}) coded as RGB")
    if info.other_videos:
        streams = ", ".join(map(str, info.other_videos))
        said.append(f"video stream {info.stream_index} coded; video streams {streams} not coded")
    if info.not_kept:
        said.append(f"carried within the pictures and not kept: {', '.join(info.not_kept)}")
    if info.brief > len(info.durations):
        said.append(f"{info.brief} frames that end before the next one begins are shown until then")
    if info.index_hidden:
        said.append("read without its index, which does not describe its chunks")
    if info.untimed:
        said.append(f"{info.untimed} frames without a time stamp not coded")
    return tuple(said)
