"""A stretch of an archive as one H.264 file for a browser: the source's pictures above the decoded ones.

Every frame is measured on the way. One pass, flat memory. Knows no server and no page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2vc_ray.access import Frame, OpenArchive, Stretch
from s2vc_ray.archive import GopRecord
from s2vc_ray.decompress import Watch, watched
from s2vc_ray.encoders import Encoder, encoder
from s2vc_ray.export import shown
from s2vc_ray.mux import VideoHeader, write_video
from s2vc_ray.source_frames import SourceFrames

_CRF = 12
"""What H.264 adds to both sides cannot be seen at it."""
_KEYFRAMES = 12
"""Frames from one keyframe to the next: a step back decodes at most so many."""
_BLOCK = 16
"""Side of H.264's macroblocks: none of them shall hold both pictures."""
_MEASURED = 8
"""Frames measured at once."""

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Clip:
    """What was written. Lists have an entry for each frame.

    Attributes:
        width, height: of one picture as it is shown.
        source_top, decoded_top: the row of the file's pictures at which each begins; None: the source is not in it.
        times: seconds from the first frame of the clip.
        begin, end: of the clip, in seconds of the video; seconds from its first frame to the end of its last.
        frames, gops, coded: numbers in the video; how the GOP is coded, in words.
        scores: by metric; empty without a source.
        notes: what could not be measured or shown.
    """

    path: Path
    width: int
    height: int
    source_top: int | None
    decoded_top: int
    times: tuple[Fraction, ...]
    begin: Fraction
    end: Fraction
    frames: tuple[int, ...]
    gops: tuple[int, ...]
    coded: tuple[str, ...]
    scores: dict[str, list[float | None]]
    notes: tuple[str, ...]


def make_clip(
    archive: OpenArchive,
    stretch: Stretch,
    source: SourceFrames | None,
    out: Path,
    metrics: Sequence[str],
    *,
    watch: Watch | None = None,
) -> Clip:
    """Decode ``stretch``, measure it against ``source`` and write both to ``out``, an .mp4 file.

    Raises:
        SourceError: the source is not the archive's.

    Other errors are those of `OpenArchive.decode` and `write_video`.
    """
    _ = archive.codec  # refused before anything is read for it
    header = archive.header
    places = {
        pts: (record.index, _coded(record))
        for record in map(archive.reader.gop, stretch.gops)
        for pts in record.pts
        if stretch.holds(pts)
    }
    begin, *_ = pts_all = list(places)
    beside = None if source is None else source.frames(pts_all)
    scores = Scores(metrics if source is not None else (), str(archive.codec.device))
    missing: list[int] = []
    numbers: dict[int, int] = {}
    height, width, _ = shown(
        Frame(0, 0, Fraction(0), np.zeros((header.height, header.width, 3), np.uint8)), header
    ).shape
    top = -(-height // _BLOCK) * _BLOCK

    def pictures() -> Iterator[tuple[int, Picture]]:
        for frame, original in _paired(watched(archive.decode(stretch), stretch, watch), beside):
            numbers[frame.pts] = frame.number
            scores.add(original, frame.rgb)
            sides = [shown(frame, header)]
            if source is not None:
                if original is None:
                    missing.append(frame.number)
                    original = np.zeros_like(frame.rgb)
                sides.insert(0, shown(replace(frame, rgb=original), header))
            yield frame.pts - begin, _stacked(sides, top)

    written = VideoHeader(
        width=width + width % 2,
        height=top * (1 if source is None else 2),
        time_base=header.time_base,
        rotation=0,
        sample_aspect=Fraction(1),
        colour=header.colour,
        average_rate=header.average_rate,
        last_duration=stretch.last_duration,
    )
    write_video(out, pictures(), written, encoder=_encoder())
    measured = scores.finish()
    notes = list(scores.notes)
    if missing:
        notes.append(
            f"The source's frames {', '.join(map(str, missing[:10]))} do not decode: they are black."
        )
    times = tuple((pts - begin) * header.time_base for pts in numbers)
    step = stretch.last_duration * header.time_base or 1 / (header.average_rate or Fraction(25))
    return Clip(
        path=out,
        width=width,
        height=height,
        source_top=None if source is None else 0,
        decoded_top=0 if source is None else top,
        times=times,
        begin=(begin - archive.reader.index.gops[0].first_pts) * header.time_base,
        end=times[-1] + step,
        frames=tuple(numbers.values()),
        gops=tuple(places[pts][0] for pts in numbers),
        coded=tuple(places[pts][1] for pts in numbers),
        scores=measured,
        notes=tuple(notes),
    )


def _coded(record: GopRecord) -> str:
    return f"q {record.q}" if record.codec == "s2vc" else f"{record.codec} at {record.q}"


def _encoder() -> Encoder:
    chosen = encoder("h264", crf=_CRF, preset="veryfast")
    # Without B-frames, time stamps and decode order are one, and the first picture lies at 0.
    return replace(chosen, options=(*chosen.options, ("bf", "0"), ("g", str(_KEYFRAMES))))


def _paired(
    frames: Iterable[Frame], source: Iterator[tuple[int, Picture]] | None
) -> Iterator[tuple[Frame, Picture | None]]:
    """Each decoded frame with the source's of the same time, None where that is not to be had."""
    waiting: dict[int, Picture] = {}
    for frame in frames:
        while source is not None and frame.pts not in waiting:
            pts, rgb = next(source, (None, None))
            if pts is None or rgb is None or pts > frame.pts:
                if pts is not None and rgb is not None:
                    waiting[pts] = rgb
                break
            waiting[pts] = rgb
        yield frame, waiting.pop(frame.pts, None)
        for gone in [pts for pts in waiting if pts < frame.pts]:
            del waiting[gone]


def _stacked(pictures: Sequence[Picture], top: int) -> Picture:
    """One above the other, each on ``top`` rows, of even width; its last row and column fill what is over."""
    height, width, _ = pictures[0].shape
    over = ((0, top - height), (0, width % 2), (0, 0))
    return np.concatenate([np.pad(one, over, mode="edge") for one in pictures])


class Scores:
    """Figures of every frame, measured some at a time. One metric after another is left out if it cannot be had."""

    def __init__(self, metrics: Sequence[str], device: str) -> None:
        self.notes: list[str] = []
        self._device = device
        self._found: dict[str, list[float | None]] = {name: [] for name in metrics}
        self._count = 0
        self._waiting: list[tuple[Picture, Picture]] = []

    def add(self, source: Picture | None, decoded: Picture) -> None:
        """The next frame of both sides."""
        if not self._found:
            return
        if source is None:
            self._measure()
            self._count += 1
            for values in self._found.values():
                values.append(None)
            return
        self._waiting.append((source, decoded))
        self._count += 1
        if len(self._waiting) == _MEASURED:
            self._measure()

    def finish(self) -> dict[str, list[float | None]]:
        """The figures, by metric."""
        self._measure()
        return {name: values for name, values in self._found.items() if len(values) == self._count and values}

    def _measure(self) -> None:
        if not self._waiting:
            return
        from s2vc_model.metrics import MetricWeightsMissing, ToolMissing, measure

        source, decoded = (np.stack(side) for side in zip(*self._waiting, strict=True))
        self._waiting.clear()
        for name in list(self._found):
            try:
                result = measure(source, decoded, [name], device=self._device)[name]
            except (MetricWeightsMissing, ToolMissing) as error:
                del self._found[name]
                self.notes.append(f"{name} is not measured: {error}")
                continue
            self._found[name] += map(float, result.values)
