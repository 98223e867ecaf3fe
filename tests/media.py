"""Tiny clips made on the fly, for every test that needs a video. Nothing here is a test."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np

from s2vc_ray.priority import ordinary_priority

RATE = 25
QUIET = {"x265-params": "log-level=none"}


def pictures(frames: int, width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth moving gradients with a bouncing square, uint8 RGB (T, H, W, 3); every frame differs."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6.28, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    out = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        for c in range(3):
            wave = np.sin(x / (17 + 4 * c) + 0.21 * t + phase[c]) + np.cos(y / 23 - 0.13 * t)
            out[t, :, :, c] = (127 + 60 * wave).clip(0, 255)
        side = max(4, min(width, height) // 4)
        top, left = (5 * t) % max(1, height - side), (7 * t) % max(1, width - side)
        out[t, top : top + side, left : left + side] = (t * 37 % 256, t * 59 % 256, 255 - t * 11 % 256)
    return out


def make_clip(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 24,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, RATE),
    gop: int = 8,
    b_frames: int | None = None,
    options: dict[str, str] | None = None,
    audio: str | None = None,
    rate: Fraction | int = RATE,
    rotation: int = 0,
    sample_aspect: Fraction | None = None,
    colour: tuple[int, int, int, int] | None = None,
    metadata: dict[str, str] | None = None,
    rgb: np.ndarray | None = None,
    container_options: dict[str, str] | None = None,
    fields: str = "",
    seed: int = 0,
) -> Path:
    """Encode a clip and return ``path``; the container follows its suffix.

    Args:
        pts: time stamps in ``time_base`` units (default 0, 1, 2, ...): any increasing list makes it VFR.
        audio: an audio encoder, such as "aac" or "pcm_s16le", for a 440 Hz tone beside the pictures.
        rate: frames per second that the encoder is told; ``time_base`` and ``pts`` decide the times.
        rotation: degrees counter-clockwise, as a display matrix.
        colour: (range, primaries, transfer, matrix) codes.
        rgb: pictures to encode instead of ``pictures(...)``.
        fields: ``tff`` or ``bff`` to tell the encoder which field of each picture comes first.
    """
    width, height = size
    count = frames if pts is None else len(pts)
    images = pictures(count, width, height, seed) if rgb is None else rgb
    times = list(range(len(images))) if pts is None else list(pts)
    defaults = QUIET if codec == "libx265" else {}
    with av.open(str(path), "w", container_options=container_options or {}) as out:
        out.metadata.update(metadata or {})
        video = out.add_stream(codec, rate=rate, options={**defaults, **(options or {})})
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.time_base = time_base
        video.time_base = time_base
        video.gop_size = gop
        video.codec_context.thread_count = 1
        if b_frames is not None:
            video.max_b_frames = b_frames
        if rotation:
            video.set_display_rotation(rotation)
        if sample_aspect:
            video.codec_context.sample_aspect_ratio = sample_aspect
        if colour:
            context = video.codec_context
            context.color_range, context.color_primaries, context.color_trc, context.colorspace = colour
        sound = _tone_stream(out, audio) if audio else None
        seconds = float((times[-1] + 1) * time_base)
        if sound is not None:
            _encode_tone(out, sound, seconds)
        flag = _field_flag(fields, width, height, pix_fmt) if fields else None
        for time, image in zip(times, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pix_fmt)
            if flag is not None:
                flag.vpush(frame)
                frame = flag.vpull()
            frame.pts, frame.time_base = time, time_base
            with ordinary_priority():
                packets = video.encode(frame)
            out.mux(packets)
        out.mux(video.encode())
    return path


def _field_flag(fields: str, width: int, height: int, pix_fmt: str) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat(pix_fmt), time_base=Fraction(1, RATE)
    )
    graph.link_nodes(source, graph.add("setfield", fields), graph.add("buffersink")).configure()
    return graph


def _tone_stream(out: av.container.OutputContainer, codec: str) -> av.AudioStream:
    sound = out.add_stream(codec, rate=48000)
    sound.layout = "stereo"
    sound.metadata["language"] = "deu"
    return sound


def _encode_tone(out: av.container.OutputContainer, sound: av.AudioStream, seconds: float) -> None:
    samples = round(seconds * 48000)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / 48000)
    both = np.stack([tone, tone[::-1]]).astype(np.float32)
    for start in range(0, samples, 1024):
        part = np.ascontiguousarray(both[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        out.mux(sound.encode(frame))
    out.mux(sound.encode())


def make_audio(path: Path, codec: str = "aac", seconds: float = 0.5) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as out:
        _encode_tone(out, _tone_stream(out, codec), seconds)
    return path


def scenes(lengths: Sequence[int], width: int = 64, height: int = 48) -> np.ndarray:
    """``pictures`` of several scenes, dark and bright in turns, so that each begins with a cut that all can see."""
    parts = [
        pictures(length, width, height, seed) // 2 + 127 * (seed % 2) for seed, length in enumerate(lengths)
    ]
    return np.concatenate(parts).astype(np.uint8)


def open_gop_h264(path: Path, *, frames: int = 32, size: tuple[int, int] = (352, 288), gop: int = 8) -> Path:
    """H.264 with open GOPs: B-frames that lead a keyframe reference the GOP before it."""
    params = f"open-gop=1:keyint={gop}:min-keyint={gop}:bframes=3:b-adapt=0:scenecut=0:threads=1"
    return make_clip(path, frames=frames, size=size, gop=gop, options={"x264-params": params})


def open_gop_h265(path: Path, *, frames: int = 32, size: tuple[int, int] = (352, 288), gop: int = 8) -> Path:
    """HEVC as libx265 makes it by default: CRA keyframes with RASL leading pictures."""
    params = f"keyint={gop}:min-keyint={gop}:bframes=3:b-adapt=0:scenecut=0"
    params += ":log-level=none:pools=none:frame-threads=1"
    return make_clip(
        path, codec="libx265", frames=frames, size=size, gop=gop, options={"x265-params": params}
    )


def rich_clip(path: Path) -> Path:
    """A clip with a subtitle, a chapter, an attached file and a title."""
    plain = make_clip(path.with_name("plain.mkv"), frames=20)
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        out.metadata["title"] = "Tést"
        out.set_chapters(
            [{"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
        )
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        text = out.add_mux_stream("subrip")
        text.metadata["language"] = "fra"
        out.add_attachment("font.ttf", "font/ttf", b"\x00\x01not really a font")
        subtitle = av.Packet(b"Bonjour")
        subtitle.stream, subtitle.time_base = text, Fraction(1, 1000)
        subtitle.pts = subtitle.dts = 100
        subtitle.duration = 300
        out.mux(subtitle)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    return path


def truncate(source: Path, target: Path, fraction: float = 0.6) -> Path:
    """The first part of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


def corrupt_middle(
    source: Path, target: Path, *, start: float = 0.45, length: float = 0.1, seed: int = 0
) -> Path:
    """A file whose middle bytes were overwritten with noise."""
    data = bytearray(source.read_bytes())
    at, count = int(len(data) * start), int(len(data) * length)
    data[at : at + count] = np.random.default_rng(seed).bytes(count)
    target.write_bytes(data)
    return target


def empty_file(path: Path) -> Path:
    """Zero bytes."""
    path.write_bytes(b"")
    return path


def text_file(path: Path) -> Path:
    """Not media at all."""
    path.write_text("This is a letter, not a film.\n" * 40)
    return path


def random_file(path: Path, size: int = 20_000, seed: int = 0) -> Path:
    """Noise."""
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path


def all_frames(path: Path) -> tuple[list[int | None], list[av.VideoFrame]]:
    """Sequential decode of the first video stream: time stamps and frames, in presentation order."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.pts for frame in frames], frames
