"""The classical codecs that decoded pictures can be written with: their encoders, settings and containers.

Knows names and numbers only; it must not know files, streams or archives.

A new codec is one entry of ``CODECS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from s2vc_ray.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Encoder:
    """One encoder of FFmpeg with its settings.

    Attributes:
        name: FFmpeg's name of it.
        containers: suffixes of the files that can hold its stream, the usual one first.
        pix_fmt: the pixel format to write.
        odd_pix_fmt: the one for pictures of odd width or height; 4:4:4 where the encoder takes no such 4:2:0,
            since a crop or a pad would change the picture.
        options: FFmpeg's options, as pairs.
        odd_options: those that pictures of ``odd_pix_fmt`` need instead.
        tag: the codec tag in .mp4 and .mov, where FFmpeg's own choice does not play everywhere.
        keeps_range: whether the stream can say that it is full range; else it is written as limited.
        keeps_aspect: whether the stream itself says the samples' aspect; else only .mp4 and .mov can, since the
            library cannot have Matroska say it.
    """

    name: str
    containers: tuple[str, ...]
    pix_fmt: str
    odd_pix_fmt: str
    options: tuple[tuple[str, str], ...] = ()
    odd_options: tuple[tuple[str, str], ...] = ()
    tag: str = ""
    keeps_range: bool = True
    keeps_aspect: bool = True

    def for_size(self, width: int, height: int) -> tuple[str, dict[str, str]]:
        """The pixel format and the options for pictures of this size."""
        if width % 2 or height % 2:
            return self.odd_pix_fmt, dict(self.options) | dict(self.odd_options)
        return self.pix_fmt, dict(self.options)


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec as the command line names it.

    Attributes:
        encoder: what codes it, without rate and preset.
        crf: the constant rate factor where none is given; None where it has none.
        worst: the largest one.
        presets: what ``--preset`` may be, the usual one first; those of speed, or profiles.
        preset_option: which option of the encoder that is.
    """

    encoder: Encoder
    crf: int | None
    worst: int
    presets: tuple[str, ...]
    preset_option: str


_SPEEDS = (
    *("medium", "ultrafast", "superfast", "veryfast", "faster"),
    *("fast", "slow", "slower", "veryslow"),
)
_PLAYABLE = (".mp4", ".mkv", ".mov")

CODECS = {
    "h264": Codec(Encoder("libx264", _PLAYABLE, "yuv420p", "yuv444p"), 16, 51, _SPEEDS, "preset"),
    "hevc": Codec(
        Encoder(
            "libx265", _PLAYABLE, "yuv420p", "yuv444p", (("x265-params", "log-level=error"),), tag="hvc1"
        ),
        *(18, 51, _SPEEDS, "preset"),
    ),
    "av1": Codec(
        Encoder("libsvtav1", (".mp4", ".mkv"), "yuv420p", "yuv420p", keeps_aspect=False),
        *(20, 63, tuple(map(str, (8, 0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13))), "preset"),
    ),
    # Its 4:2:2 garbles the last columns of odd widths.
    "prores": Codec(
        Encoder(
            "prores_ks",
            (".mov", ".mkv"),
            "yuv422p10le",
            "yuv444p10le",
            odd_options=(("profile", "4444"),),
            keeps_range=False,
            keeps_aspect=False,
        ),
        *(None, 0, ("hq", "proxy", "lt", "standard"), "profile"),
    ),
    # RGB in, RGB out: the decoded pictures bit by bit.
    "ffv1": Codec(
        Encoder("ffv1", (".mkv",), "bgr0", "bgr0", (("level", "3"), ("slicecrc", "1")), keeps_aspect=False),
        *(None, 0, (), ""),
    ),
}


def encoder(codec: str = "h264", *, crf: int | None = None, preset: str | None = None) -> Encoder:
    """The encoder of ``codec`` (a key of `CODECS`) at a rate and preset; None is the codec's usual one.

    Raises:
        ConfigError: no such codec or preset, or a rate that it does not have.
    """
    if codec not in CODECS:
        raise ConfigError(f"unknown codec {codec!r}; use one of {', '.join(CODECS)}")
    chosen = CODECS[codec]
    options = dict(chosen.encoder.options)
    if crf is not None and chosen.crf is None:
        raise ConfigError(f"{codec} has no constant rate factor: leave --crf out")
    crf = chosen.crf if crf is None else crf
    if crf is not None:
        if not 0 <= crf <= chosen.worst:
            raise ConfigError(f"crf is {crf}; {codec} takes 0 (best) to {chosen.worst}")
        options["crf"] = str(crf)
    if preset is not None and preset not in chosen.presets:
        presets = ", ".join(chosen.presets) or "none at all"
        raise ConfigError(f"preset is {preset!r}; {codec} takes {presets}")
    if chosen.presets:
        options[chosen.preset_option] = preset or chosen.presets[0]
    return replace(chosen.encoder, options=tuple(options.items()))
