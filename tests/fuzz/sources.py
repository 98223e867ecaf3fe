"""The source videos that are damaged: one of each container, small, with sound and what else it holds."""

from __future__ import annotations

from pathlib import Path

from tests.matrix.assemble import Track, assemble, lines, sound
from tests.media import make_clip, open_gop_h264

FRAMES = 14


def make_sources(folder: Path) -> list[Path]:
    """Write them into ``folder``; a run makes them once, its workers only read them."""
    folder.mkdir(exist_ok=True)
    aac, vtt = sound(folder / "a.m4a"), lines(folder / "l.vtt")
    opus = sound(folder / "o.mka", "libopus")
    made = [
        assemble(folder / "h264.mp4", [Track(aac)], frames=FRAMES, chapters=[{"start": 0, "end": 300}]),
        assemble(
            folder / "h264.mkv",
            [Track(opus), Track(vtt)],
            frames=FRAMES,
            files=[({"filename": "a.ttf", "mimetype": "font/ttf"}, b"font" * 20)],
        ),
        make_clip(folder / "h264.ts", audio="aac", frames=FRAMES),
        make_clip(folder / "mpeg2.ts", codec="mpeg2video", frames=FRAMES),
        make_clip(folder / "mpeg4.avi", codec="mpeg4", audio="libmp3lame", frames=FRAMES),
        make_clip(folder / "vp8.webm", codec="libvpx", audio="libopus", frames=FRAMES),
        make_clip(folder / "vp9.webm", codec="libvpx-vp9", frames=FRAMES),
        make_clip(
            folder / "prores.mov", codec="prores_ks", pix_fmt="yuv422p10le", audio="pcm_s16le", frames=4
        ),
        make_clip(folder / "hevc.mov", codec="libx265", frames=FRAMES),
        open_gop_h264(folder / "open.mp4", frames=FRAMES, size=(64, 48)),
    ]
    for spare in (aac, vtt, opus):
        spare.unlink()
    return made
