"""A GOP's frames are the same whatever a worker read before it: readings that go on are those that would begin."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

import s2vc_ray.source_io
import s2vc_ray.standby
from s2vc_ray.errors import SourceError
from s2vc_ray.frames import decode_gop
from s2vc_ray.probe import probe
from s2vc_ray.source_io import Source
from s2vc_ray.split import split
from s2vc_ray.standby import Standby, Standbys
from s2vc_ray.values import GopSpec
from tests.matrix.case import Case
from tests.matrix.cases import CASES

GOP = 5
MOST = 24
"""GOPs of a source that are read in every order."""


def told(source: Source | Standby, spec: GopSpec) -> tuple[object, ...]:
    """All there is to a GOP, as far as it can be read."""
    try:
        gop = decode_gop(source, spec)
    except SourceError as error:
        return (str(error),)
    return gop.pts, gop.digests, gop.frames.tobytes(), gop.corrupt, gop.interlaced, gop.missing, gop.strayed


def orders(specs: Sequence[GopSpec]) -> dict[str, list[GopSpec]]:
    """In turn, twice; one worker of two; two threads of a worker that overtake each other; backwards; any."""
    swapped = [specs[at ^ 1] for at in range(len(specs) - len(specs) % 2)]
    return {
        "in turn": list(specs),
        "in turn again": list(specs),
        "every second": list(specs[::2]),
        "swapped": swapped,
        "backwards": list(specs[::-1]),
        "any": random.Random(5).sample(list(specs), len(specs)),
    }


@contextmanager
def as_stream(uri: str, cache: object = None) -> Iterator[BinaryIO]:
    """A source as a store gives it: a stream with one place in it for whoever reads."""
    with open(uri, "rb") as stream:
        yield stream


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gops_do_not_know_of_each_other(
    case: Case, source_of: Callable[[Case], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(case)
    try:
        info = probe(source)
    except SourceError:
        return  # `test_case` says why
    specs = split(info, source_uri=str(source), video_id="v", gop=GOP)[:MOST]
    alone = {spec.index: told(str(source), spec) for spec in specs}
    for number, (name, order) in enumerate(orders(specs).items()):
        if number % 2:  # those of a store
            monkeypatch.setattr(s2vc_ray.standby, "open_media", as_stream)
            monkeypatch.setattr(s2vc_ray.source_io, "_FILE_BUFFER", 512)
        held = Standbys()
        for spec in order:
            with held.of(str(source), "version", spec.pts[0]) as standby:
                assert told(standby, spec) == alone[spec.index], name
        held.close()
        monkeypatch.undo()
