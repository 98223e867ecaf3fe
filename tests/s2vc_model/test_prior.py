"""The integer prior: integers in, integers out, every product below 2**24, and near what training saw."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from s2vc_model.config import QUALITIES
from s2vc_model.errors import WeightsError
from s2vc_model.integer import ACTIVATION_MAX, EXACT_SUM, STEPS
from s2vc_model.prior import PER_OCTAVE, RESIDUAL_MAX, SCALES, Prior, checkerboard, quality_weights
from s2vc_model.weight_files import load_weights
from tests.s2vc_model.networks import TINY, tiny_network

HUGE = 2.0**44
"""No layer's output can exceed this: a sum below 2**24 times a scale of at most 2**20."""
SIZE = (8, 12)
MEAN_LIMIT, OCTAVE_LIMIT, FIXED_LIMIT = 2047, 8191, 16383


@pytest.fixture(scope="module")
def prior() -> Prior:
    network = tiny_network()
    network.freeze()
    return network.inter_prior


@pytest.fixture(scope="module")
def packaged() -> dict[str, Prior]:
    return load_weights("small").network.priors()


def inputs(prior: Prior, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random hyper-latents, state, latents and qualities, some of them at their limits."""
    torch.manual_seed(seed)
    channels = prior.h_in.weight.shape[1]
    z = torch.randint(-200, 201, (2, channels, 2, 3)).float()
    z[0, 0] = RESIDUAL_MAX
    state = torch.randint(0, ACTIVATION_MAX + 1, (2, prior.t_b.weight.shape[0], *SIZE)).float()
    y = torch.randint(-ACTIVATION_MAX, ACTIVATION_MAX + 1, (2, prior.latent, *SIZE)).float()
    return z, state, y, torch.tensor([0, QUALITIES - 1])


def assert_integers(x: Tensor, low: float, high: float) -> None:
    assert torch.equal(x, torch.round(x))
    assert float(x.min()) >= low
    assert float(x.max()) <= high


@torch.no_grad()
def outputs(prior: Prior, seed: int = 0) -> dict[str, Tensor]:
    z, state, y, q = inputs(prior, seed)
    before = state if prior.temporal else None
    hyper = prior.hyper(z, SIZE)
    hidden, raw = prior.first(hyper, before, q)
    return {
        "hyper": hyper,
        "hidden": hidden,
        "raw": raw,
        "second": prior.second(y, hidden),
        "state": prior.advance(y, before),
    }


@pytest.mark.parametrize("kind", ["intra", "inter"])
def test_every_activation_is_an_integer_within_its_range(packaged: dict[str, Prior], kind: str) -> None:
    out = outputs(packaged[kind])
    assert_integers(out["hyper"], -ACTIVATION_MAX, ACTIVATION_MAX)
    assert_integers(out["hidden"], 0, ACTIVATION_MAX)
    assert_integers(out["state"], 0, ACTIVATION_MAX)
    for name in ("raw", "second"):
        for part in packaged[kind].distribution(out[name], inputs(packaged[kind])[3]):
            assert_integers(part, -(2**15), 2**15)


@pytest.mark.parametrize("kind", ["intra", "inter"])
def test_frozen_outputs_equal_float64(packaged: dict[str, Prior], kind: str) -> None:
    """No float32 sum or product in the prior rounds: a float64 evaluation gives the same bits."""
    prior = packaged[kind]
    single = outputs(prior, seed=4)
    q = inputs(prior)[3]
    mean, index = prior.distribution(single["raw"], q)
    wide = load_weights("small").network.priors()[kind].double()
    double = outputs_in_double(wide, seed=4)
    assert {k: torch.equal(single[k].double(), double[k]) for k in single} == dict.fromkeys(single, True)
    wide_mean, wide_index = wide.distribution(double["raw"], q)
    assert torch.equal(mean.double(), wide_mean)
    assert torch.equal(index.double(), wide_index)


@torch.no_grad()
def outputs_in_double(prior: Prior, seed: int) -> dict[str, Tensor]:
    z, state, y, q = (v.double() if v.is_floating_point() else v for v in inputs(prior, seed))
    before = state if prior.temporal else None
    hyper = prior.hyper(z, SIZE)
    hidden, raw = prior.first(hyper, before, q)
    second, following = prior.second(y, hidden), prior.advance(y, before)
    return {"hyper": hyper, "hidden": hidden, "raw": raw, "second": second, "state": following}


def test_trained_form_and_frozen_form_agree_within_rounding() -> None:
    network = tiny_network(seed=3)
    for prior in network.priors().values():
        trained = outputs(prior)
        prior.load_integers(prior.quantise())
        exact = outputs(prior)
        for name in trained:
            gap = (trained[name] - exact[name]).abs()
            unit = 16.0 if name in ("raw", "second") else 1.0
            assert float(gap.max()) <= 8 * unit, name
            assert float(gap.mean()) < 0.5 * unit, name


def test_trained_form_is_not_rounded_to_the_frozen_one_by_accident() -> None:
    prior = tiny_network(seed=3).intra_prior
    trained = outputs(prior)
    with torch.no_grad():
        prior.h_in.weight *= 1.3
    prior.load_integers(prior.quantise())
    assert not torch.allclose(outputs(prior)["hyper"], trained["hyper"], atol=3)


def test_thawed_masters_are_the_integers() -> None:
    prior = tiny_network(seed=1).inter_prior
    prior.load_integers(prior.quantise())
    exact = outputs(prior)
    frozen_bias = prior.bias_of(torch.tensor([5, 20]))
    prior.thaw()
    assert prior.tables is None
    thawed = outputs(prior)
    assert torch.allclose(prior.bias_of(torch.tensor([5, 20])), frozen_bias, atol=0.5)
    for name in ("hyper", "state"):
        assert float((thawed[name] - exact[name]).abs().max()) <= 1, name


def edge_values() -> Tensor:
    """Raw outputs around every limit, rounding tie and overflow."""
    near = torch.tensor(
        [0.0, 0.5, 1.5, 2.5, MEAN_LIMIT, MEAN_LIMIT + 0.5, OCTAVE_LIMIT, OCTAVE_LIMIT + 0.5, 1e6, HUGE]
    )
    return torch.cat((near, -near, torch.linspace(-9000, 9000, 1005)))


def extreme(prior: Prior) -> Prior:
    """The same prior with quality tables at their limits: the four corners, then random rows."""
    values = prior.quantise()
    torch.manual_seed(0)
    for name, low, high in (("scale", 32, 4095), ("inverse", 1, 1024), ("offset", -(2**16), 2**16)):
        table = torch.randint(low, high + 1, values[f"table.{name}"].shape, dtype=torch.int32)
        table[0], table[1] = low, high
        values[f"table.{name}"] = table
    prior.load_integers(values)
    return prior


def test_distribution_is_exact_and_bounded_for_any_raw_output() -> None:
    prior = extreme(tiny_network().intra_prior)
    assert prior.tables is not None
    q = torch.arange(len(prior.tables.scale))
    raw = edge_values().view(1, 1, 1, -1).expand(len(q), 2 * prior.latent, 1, -1)
    mean, index = prior.distribution(raw, q)
    assert_integers(index, 0, SCALES - 1)
    wide = raw.double().round()
    scale, offset = (t.double()[:, :, None, None] for t in (prior.tables.scale, prior.tables.offset))
    product = wide[:, : prior.latent].clamp(-MEAN_LIMIT, MEAN_LIMIT) * scale
    placed = wide[:, prior.latent :].clamp(-OCTAVE_LIMIT, OCTAVE_LIMIT) * PER_OCTAVE + offset
    assert float(product.abs().max()) < EXACT_SUM
    assert float(placed.abs().max()) < EXACT_SUM
    assert torch.equal(mean.double(), torch.round(product / 1024))
    assert torch.equal(index.double(), torch.round(placed / 256).clamp(0, SCALES - 1))


def test_activations_are_exact_and_bounded_for_any_latent() -> None:
    prior = extreme(tiny_network().intra_prior)
    assert prior.tables is not None
    largest = RESIDUAL_MAX * STEPS + MEAN_LIMIT * 4095 // 1024 + 1
    near = torch.tensor(
        [0, 1, 2, 3, 7, 8, 9, 255, 256, 257, FIXED_LIMIT - 1, FIXED_LIMIT, FIXED_LIMIT + 1, largest]
    )
    fixed = torch.cat((near, -near, torch.arange(-20000, 20001, 37))).float()
    q = torch.arange(len(prior.tables.scale))
    fixed = fixed.view(1, 1, 1, -1).expand(len(q), prior.latent, 1, -1)
    got = prior.to_activation(fixed, q)
    product = (
        fixed.double().clamp(-FIXED_LIMIT, FIXED_LIMIT) * prior.tables.inverse.double()[:, :, None, None]
    )
    assert float(product.abs().max()) < EXACT_SUM
    assert torch.equal(got.double(), torch.round(product / 512).clamp(-ACTIVATION_MAX, ACTIVATION_MAX))
    assert_integers(got, -ACTIVATION_MAX, ACTIVATION_MAX)


def test_largest_reconstruction_is_exact() -> None:
    assert RESIDUAL_MAX * STEPS + MEAN_LIMIT * 4095 / 1024 < EXACT_SUM


def test_quality_tables_rise_with_quality(packaged: dict[str, Prior]) -> None:
    for prior in packaged.values():
        q = torch.tensor([0, 21, 42, 63])
        step = prior.quantiser(q).mean((1, 2, 3))
        assert bool((step[1:] > step[:-1]).all())
        assert prior.tables is not None
        there_and_back = prior.tables.scale * prior.tables.inverse
        assert float((there_and_back / (64 * 512) - 1).abs().max()) < 0.07


def test_quarters_lie_between_qualities_and_whole_ones_are_as_stored(packaged: dict[str, Prior]) -> None:
    for prior in packaged.values():
        tables = prior.tables
        assert tables is not None
        stored = prior.quantise()
        for name in ("scale", "inverse", "offset", "bias"):
            rows = getattr(tables, name)
            assert rows.shape[0] == 255
            assert torch.equal(rows[:QUALITIES].int(), stored[f"table.{name}"])
            low, high = rows[: QUALITIES - 1], rows[1:QUALITIES]
            for fine in (1, 2, 3):
                between = rows[QUALITIES * fine :][: QUALITIES - 1]
                assert bool((between >= torch.minimum(low, high)).all())
                assert bool((between <= torch.maximum(low, high)).all())
                assert_integers(between, float(rows.min()), float(rows.max()))
                if name != "inverse":
                    exact = (low * (4 - fine) + high * fine) / 4
                    assert float((between - exact).abs().max()) <= 0.5
        assert float((tables.scale * tables.inverse / (64 * 512) - 1).abs().max()) < 0.07


def test_checkerboard_splits_every_channel_in_half() -> None:
    first = checkerboard(6, 4, 8, torch.device("cpu"))[0]
    assert first.shape == (6, 4, 8)
    assert bool((first.float().mean((1, 2)) == 0.5).all())
    assert bool((first[:, :, 1:] != first[:, :, :-1]).all())
    assert bool((first[:, 1:] != first[:, :-1]).all())
    assert torch.equal(first[0], ~first[5])
    assert bool(first[0, 0, 0])


def test_quality_weights_interpolate() -> None:
    rows = quality_weights(8)
    assert rows.shape == (QUALITIES, 8)
    assert torch.allclose(rows.sum(1), torch.ones(QUALITIES))
    assert bool((rows >= 0).all())
    assert rows[0].argmax() == 0
    assert rows[-1].argmax() == 7
    assert bool(((rows > 0).sum(1) <= 2).all())


def test_frozen_only_functions_say_so() -> None:
    prior = Prior(TINY, temporal=False)
    q, x = torch.zeros(1, dtype=torch.long), torch.zeros(1, 2 * TINY.latent, 2, 2)
    calls: list[Callable[[], object]] = [
        lambda: prior.distribution(x, q),
        lambda: prior.to_activation(x[:, : TINY.latent], q),
        lambda: prior.quantiser(q),
    ]
    for call in calls:
        with pytest.raises(WeightsError, match="freeze"):
            call()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("table.scale", lambda t: t * 0 + 31),
        ("table.scale", lambda t: t * 0 + 4096),
        ("table.inverse", lambda t: t * 0),
        ("table.inverse", lambda t: t * 0 + 1025),
        ("table.offset", lambda t: t * 0 + 2**16 + 1),
        ("table.offset", lambda t: t * 0 - 2**16 - 1),
        ("table.bias", lambda t: t * 0 + 1025),
        ("table.bias", lambda t: t * 0 - 1025),
        ("table.bias", lambda t: t[:, :-1]),
        ("table.scale", lambda t: t[:-1]),
        ("table.scale", lambda t: t.double() + 0.5),
        ("table.offset", lambda t: t.double() * float("nan")),
        ("s_out.weight", lambda t: t * 0 + 2000),
        ("h_in.shift", lambda t: t * 0 + 21),
    ],
)
def test_load_refuses_integers_out_of_bounds(name: str, change: Callable[[Tensor], Tensor]) -> None:
    prior = tiny_network().intra_prior
    values = prior.quantise()
    values[name] = change(values[name])
    with pytest.raises(WeightsError):
        prior.load_integers(values)


def test_load_names_the_missing_tensor() -> None:
    prior = tiny_network().intra_prior
    for name in ("f_b.bias", "table.offset"):
        values = prior.quantise()
        del values[name]
        with pytest.raises(WeightsError, match=name):
            prior.load_integers(values)


def test_quality_changes_the_distribution_through_its_tables(prior: Prior) -> None:
    z, state, _, _ = inputs(prior)
    with torch.no_grad():
        hyper = prior.hyper(z, SIZE)
        low, high = (prior.first(hyper, state, torch.full((2,), q)) for q in (0, 63))
    assert not torch.equal(low[0], high[0])


def test_moving_the_prior_moves_its_tables(prior: Prior) -> None:
    network = tiny_network()
    network.freeze()
    moved = network.inter_prior.double()
    assert moved.tables is not None
    assert moved.tables.scale.dtype == torch.float64
    kept = prior.tables
    assert kept is not None
    assert torch.equal(moved.tables.scale.float(), kept.scale)


def test_hyper_features_are_cut_to_the_latent(prior: Prior) -> None:
    z = inputs(prior)[0]
    with torch.no_grad():
        whole, cut = prior.hyper(z, SIZE), prior.hyper(z, (6, 10))
    assert torch.equal(cut, whole[:, :, :6, :10])
