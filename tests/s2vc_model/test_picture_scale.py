"""Pictures coded larger than they are: which, how, and that streams of all scales decode side by side."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from s2vc_model.bitstream import EncodedGop
from s2vc_model.codec import S2vcCodec, load_model
from s2vc_model.errors import BitstreamError, SymbolMismatch, WeightsError
from s2vc_model.picture_scale import NEVER, Enlarging
from s2vc_model.weight_files import PACKAGED, digest_of, load_weights, save_weights
from tests.s2vc_model.networks import tiny_network, tiny_weights
from tests.s2vc_model.test_codec import photo

SIZES = Enlarging(twice=40, half_more=60)


@pytest.mark.parametrize(
    ("height", "width", "halves"),
    [(40, 90, 4), (90, 40, 4), (1, 1, 4), (41, 41, 3), (60, 999, 3), (61, 61, 2), (2160, 3840, 2)],
)
def test_the_shorter_side_decides(height: int, width: int, halves: int) -> None:
    assert SIZES.halves(height, width) == halves
    assert NEVER.halves(height, width) == 2


def small(lockstep: bool | None, enlarging: Enlarging) -> S2vcCodec:
    """The packaged model with another rule."""
    weights = dataclasses.replace(load_weights("small"), enlarging=enlarging)
    return S2vcCodec(weights, torch.device("cpu"), lockstep)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-6)))


@pytest.mark.parametrize("lockstep", [False, True])
def test_gops_of_all_scales_decode_in_one_call(lockstep: bool) -> None:
    """As in an archive of which some GOPs were coded anew under another rule."""
    clips = [photo(frames, 75, 49, seed=frames) for frames in (3, 1, 2, 4)]
    codecs = [
        small(lockstep, rule) for rule in (NEVER, Enlarging(0, 50), Enlarging(50, 0), Enlarging(50, 60))
    ]
    gops = [codec.encode_gops([clip], 45)[0] for codec, clip in zip(codecs, clips, strict=True)]
    assert [gop.halves for gop in gops] == [2, 3, 4, 4]
    read = [EncodedGop.from_payload(gop.to_payload()) for gop in gops]
    reader = codecs[0]
    reader.check_symbols(read)
    together = reader.decode_gops(read)
    for clip, gop, frames in zip(clips, read, together, strict=True):
        (alone,) = reader.decode_gops([gop])
        assert frames.shape == clip.shape
        assert psnr(alone, frames) > 45
        assert psnr(clip, frames) > 18


def test_the_packaged_model_reaches_what_no_quality_index_does_at_a_small_size() -> None:
    clip = photo(3, 96, 64)
    own, plain = load_model("small", "cpu"), small(None, NEVER)
    (large,), (as_it_is,) = own.encode_gops([clip], 50), plain.encode_gops([clip], 63)
    assert large.halves == 4
    assert psnr(clip, own.decode_gops([large])[0]) > psnr(clip, own.decode_gops([as_it_is])[0]) + 0.5


def test_a_scale_that_is_not_the_coded_one_is_noticed() -> None:
    codec = S2vcCodec(tiny_weights(enlarging=SIZES), torch.device("cpu"))
    (gop,) = codec.encode_gops([photo(2, 33, 20)], 30)
    codec.decode_gops([gop])
    for halves in {2, 3, 4, 5} - {gop.halves}:
        forged = dataclasses.replace(gop, halves=halves)
        for work in (codec.decode_gops, codec.check_symbols):
            with pytest.raises((SymbolMismatch, BitstreamError)):
                work([forged])


def test_memory_is_counted_at_the_coded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2vc_model.codec.free_bytes", lambda device: 1 << 28)
    plain, twice = (
        S2vcCodec(tiny_weights(enlarging=rule), torch.device("cpu"), lockstep=True)
        for rule in (NEVER, Enlarging(twice=128))
    )
    for stage in ("encode", "decode"):
        assert 3 <= plain.fitting(stage, 128, 128) / twice.fitting(stage, 128, 128) <= 5
        assert plain.fitting(stage, 160, 160) == twice.fitting(stage, 160, 160)


def test_the_rule_stands_beside_the_weights_and_is_no_part_of_the_model(tmp_path: Path) -> None:
    save_weights(tmp_path / "tiny", tiny_network(), {})
    assert load_weights(tmp_path / "tiny").enlarging == NEVER
    before = digest_of(tmp_path / "tiny" / "model.safetensors")
    path = tmp_path / "tiny" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "enlarging": {"twice": 10, "half_more": 20}}))
    changed = load_weights(tmp_path / "tiny")
    assert changed.enlarging == Enlarging(10, 20)
    assert changed.sha256 == before
    for wrong in ({"thrice": 1}, [1], {"twice": "many"}, {"twice": -1}):
        path.write_text(json.dumps({**config, "enlarging": wrong}))
        with pytest.raises(WeightsError, match="usable"):
            load_weights(tmp_path / "tiny")


def test_weights_saved_anew_enlarge_nothing_until_it_was_measured(tmp_path: Path) -> None:
    shutil.copytree(PACKAGED / "small", tmp_path / "small")
    loaded = load_weights(tmp_path / "small")
    assert loaded.enlarging != NEVER
    save_weights(tmp_path / "again", loaded.network, loaded.notes)
    assert load_weights(tmp_path / "again").enlarging == NEVER
