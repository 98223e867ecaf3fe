"""`PictureTags` onto an output stream: display matrix, field order, HDR10's static metadata.

Knows what FFmpeg's encoders call these things; it must not know files, archives or pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from av.video.stream import VideoStream

from s2vc_ray.values import FIELD_ORDERS, MasteringDisplay, PictureTags

_TOP_SHOWN_FIRST = ("tt", "bt")
_BOTTOM_SHOWN_FIRST = ("bb", "tb")


def encoder_options(encoder: str, options: dict[str, str], tags: PictureTags, height: int) -> dict[str, str]:
    """``options`` of ``encoder`` with what it takes to write ``tags`` into its stream; others stay as they are."""
    if encoder == "libx264":
        wanted = _x264(tags, height)
        return _joined(options, "x264-params", wanted)
    if encoder == "libx265":
        return _joined(options, "x265-params", _x265(tags))
    return options


def tag_stream(video: VideoStream, tags: PictureTags, rotation: int) -> None:
    """Tell the container. ``rotation`` in degrees counts where there is no display matrix."""
    if tags.display_matrix is not None:
        video.set_display_matrix(list(tags.display_matrix))
    elif rotation:
        video.set_display_rotation(rotation)
    order = FIELD_ORDERS.index(tags.field_order)
    if tags.field_order in (*_TOP_SHOWN_FIRST, *_BOTTOM_SHOWN_FIRST):
        video.codec_context.field_order = order


def not_written(encoder: str, tags: PictureTags, height: int) -> list[str]:
    """What of ``tags`` the stream cannot say, one sentence each."""
    lost = []
    if tags.field_order in (*_TOP_SHOWN_FIRST, *_BOTTOM_SHOWN_FIRST) and not (
        encoder == "libx264" and _says_fields(height)
    ):
        lost.append(f"the stream does not say that the pictures are interlaced ({tags.field_order})")
    if tags.field_order == "interlaced":
        lost.append(
            "the pictures are interlaced, in an order that the source does not tell; the file is not marked"
        )
    if encoder in ("libx264", "libx265") and tags.mastering_display and not _complete(tags.mastering_display):
        lost.append("the file does not name the mastering display, of which the source tells only a part")
    hdr = tags.mastering_display is not None or tags.content_light is not None
    if hdr and encoder not in ("libx264", "libx265"):
        lost.append(f"{encoder} cannot write the HDR10 metadata (mastering display, content light level)")
    return lost


def _x264(tags: PictureTags, height: int) -> list[str]:
    params = []
    if tags.field_order in _TOP_SHOWN_FIRST and _says_fields(height):
        params.append("fake-interlaced=1:tff=1")
    if tags.field_order in _BOTTOM_SHOWN_FIRST and _says_fields(height):
        params.append("fake-interlaced=1:bff=1")
    if _complete(tags.mastering_display):
        params.append(f"mastering-display={_st2086(tags.mastering_display or ())}")
    if tags.content_light is not None:
        params.append("cll={},{}".format(*tags.content_light))
    return params


def _x265(tags: PictureTags) -> list[str]:
    params = []
    if _complete(tags.mastering_display):
        params.append(f"master-display={_st2086(tags.mastering_display or ())}")
    if tags.content_light is not None:
        params.append("max-cll={},{}".format(*tags.content_light))
    return params


def _says_fields(height: int) -> bool:
    """Whether H.264 can mark pictures of this height as interlaced."""
    return height % 4 == 0


def _complete(display: MasteringDisplay | None) -> bool:
    return display is not None and any(display[:8]) and any(display[8:])


def _st2086(display: Sequence[Fraction]) -> str:
    """As encoders read it: colours in units of 1/50000, luminances of 1/10000 cd/m²."""
    red, green, blue, white = ([round(part * 50000) for part in display[at : at + 2]] for at in (0, 2, 4, 6))
    least, most = (round(part * 10000) for part in display[8:])
    named = (("G", green), ("B", blue), ("R", red), ("WP", white), ("L", (most, least)))
    return "".join(f"{name}({one},{other})" for name, (one, other) in named)


def _joined(options: dict[str, str], name: str, wanted: list[str]) -> dict[str, str]:
    if not wanted:
        return options
    return {**options, name: ":".join([part for part in (options.get(name),) if part] + wanted)}
