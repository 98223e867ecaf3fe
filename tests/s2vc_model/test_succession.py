"""Weights that read earlier ones' streams say so, and only where that is true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.train import main
from s2vc_model.codec import S2vcCodec
from s2vc_model.errors import WeightsError
from s2vc_model.succession import succeed
from s2vc_model.weight_facts import weight_facts
from s2vc_model.weight_files import digest_of, load_weights, save_weights
from tests.media import pictures
from tests.s2vc_model.networks import tiny_network


def saved(folder: Path, *changed: str) -> Path:
    """Weights whose parameters of these names' starts are others."""
    network = tiny_network()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if changed and name.startswith(changed):
                parameter += 0.05 * torch.randn_like(parameter)
    save_weights(folder, network, {})
    return folder


def digest(folder: Path) -> str:
    return digest_of(folder / "model.safetensors")


def test_what_only_generator_and_encoders_have_is_free(tmp_path: Path) -> None:
    """And nothing else: streams decode to the same symbols, and but for the generator to the same pictures."""
    first = saved(tmp_path / "first")
    clip = pictures(3, 64, 64)
    old = S2vcCodec(load_weights(first), torch.device("cpu"))
    gop = old.encode_gops([clip], 40)[0]
    shown = old.decode_gops([gop])[0]
    encoders = ("intra.analysis.", "intra.hyper.", "inter.analysis.", "inter.hyper.", "inter.hint.")
    for number, parts in enumerate([("generator.",), encoders]):
        later = saved(tmp_path / str(number), *parts)
        assert succeed(later, first) == (digest(first),)
        codec = S2vcCodec(load_weights(later), torch.device("cpu"))
        assert codec.reads == (digest(first),)
        codec.check_symbols([gop])
        assert np.array_equal(codec.decode_gops([gop])[0], shown) == (parts is encoders)
        assert codec.encode_gops([clip], 40)[0] == gop or parts is encoders


@pytest.mark.parametrize(
    "part",
    [
        "intra.fine.",
        "inter.extract.",
        "inter.moved_pixels.",
        "inter.merge.",
        "intra_prior.f_out.",
        "inter_prior.z_mean",
    ],
)
def test_weights_that_streams_are_bound_to_are_refused(tmp_path: Path, part: str) -> None:
    first, later = saved(tmp_path / "first"), saved(tmp_path / "later", part)
    before = (later / "config.json").read_bytes()
    with pytest.raises(WeightsError, match="cannot read the streams"):
        succeed(later, first)
    assert (later / "config.json").read_bytes() == before


def test_successors_of_successors_read_all_of_them(tmp_path: Path) -> None:
    first, second, third = (saved(tmp_path / str(n), "generator.") for n in range(3))
    assert len({digest(one) for one in (first, second, third)}) == 3
    succeed(second, first)
    assert succeed(third, second) == (digest(second), digest(first))
    assert succeed(third, second) == (digest(second), digest(first))
    assert weight_facts(str(third)).reads == (digest(second), digest(first))
    assert load_weights(third).sha256 == digest(third)


@pytest.mark.parametrize("reads", ["abc", ["abc"], [3], {"a": 1}], ids=str)
def test_what_is_no_digest_is_refused(tmp_path: Path, reads: object) -> None:
    path = saved(tmp_path / "w") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reads": reads}))
    with pytest.raises(WeightsError, match="usable"):
        load_weights(tmp_path / "w")


def test_export_says_what_new_weights_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, later, far = (
        saved(tmp_path / n, *p) for n, p in (("a", ()), ("b", ("generator.",)), ("c", ("intra.",)))
    )
    export = ["--init", str(later), "--export", str(tmp_path / "out")]
    assert main([*export, "--reads", str(first)]) == 0
    assert digest(first)[:12] in capsys.readouterr().out
    assert load_weights(tmp_path / "out").reads == (digest(first),)
    assert main([*export, "--reads", str(far)]) == 1
    assert "cannot read the streams" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--init", str(later), "--ceiling", str(tmp_path), "--reads", str(first)])
