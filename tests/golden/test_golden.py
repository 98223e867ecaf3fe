"""Golden archives: every later version must read from them what was recorded when they were made.

An archive names its weights by SHA-256, and its symbols can be read with those alone. So there is one set of
archives for each set of weights that was shipped, in ``sets/<first 12 hex digits>``, and what a set proves depends on
whether its weights are still at hand:

* Every set, for ever: container, header, time stamps, payload structure, passthrough, verification, and the planes of
  GOPs of the fallback codec, which need no weights. Files are never made anew or edited; a version that reads one
  differently is wrong.
* The set of the packaged ``small`` weights, and those of earlier weights whose streams these read (see
  `s2vc_model.succession`): also every symbol, by entropy-decoding it with the integer half of the codec. Integers come
  out the same on every device and with every torch.

When weights change that streams are bound to, nothing decodes the older sets from the package alone any more: their
users keep the old weights directory and pass it with ``--model``, and so may this test, with
``S2VC_GOLDEN_WEIGHTS=DIR``. For any new weights run ``python -m tests.golden`` once, which adds their set, and commit
it with them; a test below fails until that is done. Older sets stay.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.fallback import check_av1
from s2vc_ray.gop_decoder import AV1, check_symbols, coded_gop
from s2vc_ray.lanes import LoadedCodec, load_s2vc
from tests.golden.record import RECORD, SETS, describe, described_gop

MADE = sorted(SETS.glob("*/*.s2vc"))
MOST = 60_000


def recorded(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path.parent / RECORD).read_text())[path.stem]
    return found


@pytest.fixture(scope="module")
def codec() -> LoadedCodec:
    return load_s2vc(os.environ.get("S2VC_GOLDEN_WEIGHTS", "small"), "cpu")


def test_every_set_is_whole() -> None:
    for folder in SETS.iterdir():
        names = set(json.loads((folder / RECORD).read_text()))
        assert names == {path.stem for path in folder.glob("*.s2vc")}
    assert all(path.stat().st_size < MOST for path in MADE)


@pytest.mark.parametrize("path", MADE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_all_but_the_symbols_is_read_as_ever(path: Path) -> None:
    data = path.read_bytes()
    assert describe(data) == recorded(path)
    ArchiveReader(data).verify()
    assert not ArchiveReader(data, salvage=True).damage
    reader = ArchiveReader(data)
    for record in reader.gops():
        if record.codec == AV1:
            gop = coded_gop(record, reader.header)
            assert isinstance(gop, Av1Gop)
            check_av1(gop)


def test_symbols_are_those_that_were_coded(codec: LoadedCodec) -> None:
    mine = SETS / codec.weights_sha256[:12]
    assert mine.is_dir(), (
        f"no golden archives of weights {codec.weights_sha256[:12]}: run `python -m tests.golden` and commit "
        f"sets/{mine.name} together with the new weights; leave the older sets as they are"
    )
    read = [codec.weights_sha256, *codec.reads]
    readable = [path for path in MADE if path.parent.name in {sha256[:12] for sha256 in read}]
    assert {path.parent for path in readable} >= {mine}
    for path in readable:
        told = recorded(path)
        assert told["weights_sha256"] in read
        reader = ArchiveReader(path.read_bytes())
        for gop, record in zip(told["gops"], reader.gops(), strict=True):
            assert described_gop(record, reader.header) == gop
            check_symbols(codec, [coded_gop(record, reader.header)])
