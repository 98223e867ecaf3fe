"""`PictureTags` onto an output stream: display matrix, field order, HDR10's static metadata.

Knows what FFmpeg's encoders call these things; it must not know files, archives or pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

from av.video.stream import VideoStream

from s2vc_ray.values import FIELD_ORDERS, MasteringDisplay, PictureTags

_TOP_SHOWN_FIRST = ("tt", "bt")
_BOTTOM_SHOWN_FIRST = ("bb", "tb")


@dataclass(frozen=True, slots=True)
class _Words:
    """An encoder's words: its option for parameters, the names of both kinds of HDR metadata, and whether it counts
    in units of ST 2086 (1/50000; 1/10000 cd/m²) instead of giving decimals."""

    option: str
    display: str
    light: str
    in_units: bool


_WORDS = {
    "libx264": _Words("x264-params", "mastering-display", "cll", True),
    "libx265": _Words("x265-params", "master-display", "max-cll", True),
    "libsvtav1": _Words("svtav1-params", "mastering-display", "content-light", False),
}


def encoder_options(encoder: str, options: dict[str, str], tags: PictureTags, height: int) -> dict[str, str]:
    """``options`` of ``encoder`` with what it takes to write ``tags`` into its stream; others stay as they are."""
    words = _WORDS.get(encoder)
    if words is None:
        return options
    wanted = []
    if _marks_fields(encoder, height) and tags.field_order in _TOP_SHOWN_FIRST:
        wanted.append("fake-interlaced=1:tff=1")
    if _marks_fields(encoder, height) and tags.field_order in _BOTTOM_SHOWN_FIRST:
        wanted.append("fake-interlaced=1:bff=1")
    if tags.mastering_display is not None and _is_whole(tags.mastering_display):
        wanted.append(f"{words.display}={_st2086(tags.mastering_display, in_units=words.in_units)}")
    if tags.content_light is not None and max(tags.content_light) < 1 << 16:
        wanted.append("{}={},{}".format(words.light, *tags.content_light))
    if not wanted:
        return options
    mine = [options[words.option]] if words.option in options else []
    return {**options, words.option: ":".join(mine + wanted)}


def tag_stream(video: VideoStream, tags: PictureTags, rotation: int) -> None:
    """Tell the container. ``rotation`` in degrees counts where there is no display matrix."""
    if tags.display_matrix is not None:
        video.set_display_matrix(list(tags.display_matrix))
    elif rotation:
        video.set_display_rotation(rotation)
    if tags.field_order in (*_TOP_SHOWN_FIRST, *_BOTTOM_SHOWN_FIRST):
        video.codec_context.field_order = FIELD_ORDERS.index(tags.field_order)


def not_written(encoder: str, tags: PictureTags, height: int) -> list[str]:
    """What of ``tags`` the stream cannot say, one sentence each."""
    lost = []
    ordered = tags.field_order in (*_TOP_SHOWN_FIRST, *_BOTTOM_SHOWN_FIRST)
    if ordered and not _marks_fields(encoder, height):
        lost.append(f"the stream does not say that the pictures are interlaced ({tags.field_order})")
    if tags.field_order == "interlaced":
        lost.append("the pictures are interlaced, in an order that nobody tells; the file is not marked")
    display, light = tags.mastering_display, tags.content_light
    if encoder not in _WORDS and (display is not None or light is not None):
        lost.append(f"{encoder} cannot write the HDR10 metadata (mastering display, content light level)")
    elif display is not None and not _is_whole(display):
        lost.append("the mastering display is not written: the source tells a part of it, or what cannot be")
    if encoder in _WORDS and light is not None and max(light) >= 1 << 16:
        lost.append(f"the content light level is not written: {max(light)} cd/m² cannot be")
    return lost


def _marks_fields(encoder: str, height: int) -> bool:
    """Whether whole pictures can be marked as interlaced; in H.264 at heights that 4 divides."""
    return encoder == "y4m" or (encoder == "libx264" and height % 4 == 0)


def _is_whole(display: MasteringDisplay) -> bool:
    """Whether all of it is known and within the range of its fields in a stream."""
    colours, luminances = _units(display)
    return any(colours) and any(luminances) and max(colours) < 1 << 16 and max(luminances) < 1 << 32


def _units(display: MasteringDisplay) -> tuple[list[int], list[int]]:
    return [round(part * 50000) for part in display[:8]], [round(part * 10000) for part in display[8:]]


def _st2086(display: MasteringDisplay, *, in_units: bool) -> str:
    colours, (least, most) = _units(display)
    at = zip(
        ("R", "G", "B", "WP", "L"),
        [*zip(colours[::2], colours[1::2], strict=True), (most, least)],
        strict=True,
    )
    said = {name: pair if in_units else _decimals(name, pair) for name, pair in at}
    return "".join("{}({},{})".format(name, *said[name]) for name in ("G", "B", "R", "WP", "L"))


def _decimals(name: str, pair: tuple[int, int]) -> tuple[str, str]:
    unit = 10000 if name == "L" else 50000
    return f"{pair[0] / unit:.5f}", f"{pair[1] / unit:.5f}"
