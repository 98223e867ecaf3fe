"""Interlaced pictures become progressive ones by FFmpeg's ``bwdif``: one out for each one in, times unchanged.

A picture is made from itself and its neighbours on both sides, of which it sees those that it is given: one GOP's, so
that a GOP's bytes never depend on another. It must not know GOPs, files or RGB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, groupby, islice
from typing import Any, TypeVar

import av
from av.filter import Graph
from av.video.frame import VideoFrame

from s2vc_ray.errors import SourceError

WITH_NEIGHBOURS = "bwdif"
ALONE = "estdif"
"""From a picture's own lines. Alone, a picture looks to ``bwdif`` like one of a still scene, and stays woven."""

_OPTIONS = {
    WITH_NEIGHBOURS: "mode=send_frame:parity=auto:deint=interlaced",
    ALONE: "mode=frame:parity=auto:deint=interlaced",
}
_LEAST = 4
"""Pixels of the shorter side below which the filters refuse pictures, and nobody has fields."""
_UNIT = Fraction(1, 25)
_Fact = TypeVar("_Fact")


def deinterlaced(frames: Iterable[tuple[_Fact, VideoFrame]]) -> Iterator[tuple[_Fact, VideoFrame]]:
    """Each of ``frames``, in order, with what came with it; holds three pictures at a time.

    Frames that the decoder did not flag as interlaced come back as they are, as do tiny ones. Takes the frames over:
    their times are overwritten.

    Raises:
        SourceError: pictures of this format cannot be deinterlaced.
    """
    for _, run in groupby(frames, key=lambda pair: _format(pair[1])):
        yield from _deinterlaced(run)


def _deinterlaced(run: Iterator[tuple[_Fact, VideoFrame]]) -> Iterator[tuple[_Fact, VideoFrame]]:
    """``run``, all of one format and not empty, through one filter."""
    begin = list(islice(run, 2))
    if min(begin[0][1].width, begin[0][1].height) < _LEAST:
        yield from chain(begin, run)
        return
    graph = _graph(ALONE if len(begin) == 1 else WITH_NEIGHBOURS, begin[0][1])
    waiting: deque[tuple[_Fact, VideoFrame]] = deque()
    for number, (fact, frame) in enumerate(chain(begin, run)):
        waiting.append((fact, frame))
        frame.pts, frame.time_base = number, _UNIT
        graph.vpush(frame)
        for picture in _ready(graph):
            yield _chosen(*waiting.popleft(), picture)
    graph.vpush(None)
    for picture in _ready(graph):
        yield _chosen(*waiting.popleft(), picture)


def _chosen(fact: _Fact, frame: VideoFrame, picture: VideoFrame) -> tuple[_Fact, VideoFrame]:
    return fact, picture if frame.interlaced_frame else frame


def _format(frame: VideoFrame) -> tuple[Any, ...]:
    return frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range


def _graph(name: str, frame: VideoFrame) -> Graph:
    graph = Graph()
    graph.threads = 1
    try:
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=_UNIT
        )
        graph.link_nodes(source, graph.add(name, _OPTIONS[name]), graph.add("buffersink")).configure()
    except av.FFmpegError as error:
        raise SourceError(
            f"{frame.format.name} pictures of {frame.width}x{frame.height} cannot be deinterlaced "
            f"({error.strerror}); compress without --deinterlace"
        ) from error
    return graph


def _ready(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
