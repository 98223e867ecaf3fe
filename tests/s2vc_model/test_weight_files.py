"""Weights files: what was saved loads as the same integers; anything missing, damaged or foreign is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from s2vc_model.codec import S2vcCodec
from s2vc_model.errors import WeightsError
from s2vc_model.tables import build_tables
from s2vc_model.weight_files import load_weights, save_weights
from tests.media import pictures
from tests.s2vc_model.networks import TINY, tiny_network

Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(tmp_path / "tiny", tiny_network(), {"why": "test"})
    return tmp_path / "tiny"


def test_saved_weights_load_as_the_same_integers(folder: Path) -> None:
    network = tiny_network()
    loaded = load_weights(folder)
    assert loaded.network.config == TINY
    assert loaded.notes == {"why": "test"}
    assert loaded.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.model_id == f"tiny-{loaded.sha256[:12]}"
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())
    for kind, prior in network.priors().items():
        own = loaded.network.priors()[kind]
        for name, value in prior.quantise().items():
            if name.endswith(".weight"):
                assert torch.equal(own.layers()[name.removesuffix(".weight")].w_int.long(), value.long())
        assert np.array_equal(loaded.tables[kind].cdf, build_tables(prior).cdf)
    for name, value in network.intra.state_dict().items():
        assert torch.allclose(loaded.network.intra.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_saving_again_changes_no_integer(folder: Path, tmp_path: Path) -> None:
    loaded = load_weights(folder)
    for prior in loaded.network.priors().values():
        prior.thaw()
    save_weights(tmp_path / "again", loaded.network, {})
    again = load_weights(tmp_path / "again")
    clip = [pictures(2, 48, 32)]
    first, second = (S2vcCodec(load_weights(f), torch.device("cpu")) for f in (folder, tmp_path / "again"))
    assert first.encode_gops(clip, 20) == second.encode_gops(clip, 20)
    for kind, prior in again.network.priors().items():
        for name, layer in prior.layers().items():
            own = loaded.network.priors()[kind].layers()[name]
            assert torch.equal(
                layer.w_int * layer.scale.view(-1, 1, 1, 1), own.w_int * own.scale.view(-1, 1, 1, 1)
            )


def test_same_network_gives_the_same_digest(folder: Path, tmp_path: Path) -> None:
    other = save_weights(tmp_path / "other", tiny_network(), {"why": "another note"})
    assert other == load_weights(folder).sha256
    assert save_weights(tmp_path / "third", tiny_network(seed=1), {}) != other


def test_packaged_weights_load_and_say_where_they_come_from() -> None:
    loaded = load_weights("small")
    assert loaded.network.config.preset == "small"
    assert loaded.notes


def test_unknown_model_names_those_there_are() -> None:
    with pytest.raises(WeightsError, match="small"):
        load_weights("no-such-model")


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    path = folder / "model.safetensors"
    with safe_open(str(path), framework="pt") as file:
        bound = file.metadata()
    tensors = load_file(str(path))
    change(tensors)
    save_file(tensors, str(path), metadata=bound)


def put(tensors: Tensors, name: str, at: int, value: int) -> None:
    tensors[name].view(-1)[at] = value


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("intra/h_in.weight"),
        lambda t: t.pop("inter/table.scale"),
        lambda t: t.pop("inter/cdf.values"),
        lambda t: t.pop("float/intra.open.weight"),
        lambda t: t.update({"float/stranger": torch.zeros(1)}),
        lambda t: t.update({"float/intra.open.weight": torch.zeros(3, 3, 1, 1)}),
        lambda t: t.update({"intra/h_in.weight": torch.zeros(3, 3, 1, 1, dtype=torch.int16)}),
        lambda t: t.update({"intra/h_in.weight": t["intra/h_in.weight"].float()}),
        lambda t: put(t, "intra/f_b.weight", 0, 1024),
        lambda t: put(t, "intra/f_b.bias", 0, 1 << 24),
        lambda t: put(t, "inter/f_b.shift", 0, 100),
        lambda t: put(t, "inter/table.inverse", 0, 0),
        lambda t: put(t, "inter/cdf.values", 1, -1),
        lambda t: put(t, "inter/cdf.length", 5, 3000),
    ],
)
def test_damaged_tensors_are_refused(folder: Path, change: Callable[[Tensors], object]) -> None:
    edit(folder, change)
    with pytest.raises(WeightsError):
        load_weights(folder)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(format=2),
        lambda c: c.pop("format"),
        lambda c: c.pop("codec"),
        lambda c: c.pop("notes"),
        lambda c: c["codec"].update(latent=7),
        lambda c: c["codec"].update(latent=16),
        lambda c: c["codec"].update(prior=16),
        lambda c: c["codec"].update(hyper=6),
        lambda c: c["codec"].update(feature=32),
        lambda c: c["codec"].update(feature="many"),
        lambda c: c["codec"].update(unknown=1),
        lambda c: c["codec"].update(timestep=1000),
    ],
)
def test_configs_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(folder, change)
    with pytest.raises(WeightsError):
        load_weights(folder)


def test_a_config_that_fits_but_is_not_the_saved_one_is_refused(folder: Path) -> None:
    rewrite(folder, lambda c: c["codec"].update(timestep=c["codec"]["timestep"] + 1))
    with pytest.raises(WeightsError, match="not the one"):
        load_weights(folder)


def test_broken_files_are_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for broken in (b"", whole[: len(whole) // 2], whole[:100], b"\xff" * 200):
        (folder / "model.safetensors").write_bytes(broken)
        with pytest.raises(WeightsError):
            load_weights(folder)
    (folder / "model.safetensors").write_bytes(whole)
    for broken_text in ("", "[]", "{", "null"):
        (folder / "config.json").write_text(broken_text)
        with pytest.raises(WeightsError):
            load_weights(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError):
        load_weights(folder)


def test_a_network_that_cannot_be_exact_is_not_saved(tmp_path: Path) -> None:
    network = tiny_network()
    with torch.no_grad():
        network.inter_prior.f_a.weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match="finite"):
        save_weights(tmp_path / "nan", network, {})
    assert not (tmp_path / "nan" / "model.safetensors").exists()
