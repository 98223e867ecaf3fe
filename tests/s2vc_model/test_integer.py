"""Exact convolutions: equal to int64, as fine as the overflow proof allows, and refused when the proof fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from s2vc_model.errors import WeightsError
from s2vc_model.integer import (
    ACTIVATION_MAX,
    EXACT_SUM,
    MAX_SHIFT,
    STEPS,
    WEIGHT_MAX,
    IntConv,
    rectify,
    requantise,
    round_through,
    worst_sums,
)
from s2vc_model.weight_files import LoadedWeights, load_weights
from tests.s2vc_model.networks import integer_conv

Integers = dict[str, Tensor]


@pytest.fixture(scope="module")
def small() -> LoadedWeights:
    return load_weights("small")


def frozen(cin: int, cout: int, kernel: int, gain: float, fine: int, seed: int) -> tuple[IntConv, Integers]:
    torch.manual_seed(seed)
    layer = IntConv(cin, cout, kernel, gain, fine)
    torch.nn.init.normal_(layer.bias, 0, gain)
    values = layer.quantise()
    layer.load_integers(values)
    return layer, values


def expected(values: Integers, x: Tensor) -> Tensor:
    total = integer_conv(x, values["weight"], values["bias"])
    return total.double() * torch.pow(2.0, -values["shift"].double()).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("cin", "cout", "kernel", "gain", "fine"),
    [(8, 5, 1, 1.0, 0), (16, 8, 3, 1.4, 0), (32, 16, 1, 0.1, 4), (64, 4, 3, 30.0, 0), (4, 4, 3, 1e-4, 4)],
)
def test_frozen_output_equals_int64(cin: int, cout: int, kernel: int, gain: float, fine: int) -> None:
    layer, values = frozen(cin, cout, kernel, gain, fine, seed=cin)
    x = torch.randint(-ACTIVATION_MAX, ACTIVATION_MAX + 1, (2, cin, 7, 5))
    with torch.no_grad():
        assert torch.equal(layer(x.float()).double(), expected(values, x))


def worst_input(weight: Tensor, bias: Tensor) -> Tensor:
    """(O, I, k, k) activations that drive each output channel's centre as far as it can go."""
    sign = torch.where(bias < 0, -1, 1).view(-1, 1, 1, 1)
    return sign * weight.sign().long() * ACTIVATION_MAX


def assert_exact_at_the_extreme(layer: IntConv, values: Integers) -> None:
    x = worst_input(values["weight"], values["bias"])
    reached = integer_conv(x, values["weight"], values["bias"])
    centre = layer.kernel // 2
    own = reached[:, :, centre, centre].diagonal()
    assert torch.equal(own.abs(), worst_sums(values["weight"], values["bias"]).long())
    assert int(reached.abs().max()) < EXACT_SUM
    with torch.no_grad():
        assert torch.equal(layer(x.float()).double(), expected(values, x))


def test_worst_inputs_reach_the_proved_bound_and_stay_exact() -> None:
    layer, values = frozen(128, 12, 3, 40.0, 0, seed=3)
    assert int(worst_sums(values["weight"], values["bias"]).max()) > EXACT_SUM // 4, "the case is not extreme"
    assert_exact_at_the_extreme(layer, values)


def test_every_packaged_layer_is_exact_at_its_extreme(small: LoadedWeights) -> None:
    for prior in small.network.priors().values():
        for layer in prior.layers().values():
            shift = -torch.log2(layer.scale).view(-1)
            values = {
                "weight": layer.w_int.long(),
                "bias": layer.b_int.view(-1).long(),
                "shift": shift.long(),
            }
            few = {k: v[:6] for k, v in values.items()}
            part = IntConv(layer.weight.shape[1], few["bias"].numel(), layer.kernel)
            part.load_integers(few)
            assert_exact_at_the_extreme(part, few)


def test_quantise_takes_the_finest_scale_the_proof_allows() -> None:
    torch.manual_seed(5)
    layer = IntConv(64, 40, 3, fine=4)
    with torch.no_grad():
        layer.weight *= torch.logspace(-7, 2, 40).view(-1, 1, 1, 1)
        layer.weight[0] = 0
        layer.bias[1] = 900.0
    values = layer.quantise()
    assert values["weight"].dtype == torch.int16
    assert values["bias"].dtype == torch.int32
    assert values["shift"].dtype == torch.int8

    def fits(extra: int) -> Tensor:
        step = torch.pow(2.0, values["shift"].double() + extra)
        w = torch.round(layer.weight.detach().double() * 16 * step.view(-1, 1, 1, 1))
        b = torch.round(layer.bias.detach().double() * STEPS * 16 * step)
        return (w.abs().amax((1, 2, 3)) <= WEIGHT_MAX) & (worst_sums(w, b) < EXACT_SUM)

    assert bool(fits(0).all())
    finest = values["shift"] == MAX_SHIFT
    assert bool((~fits(1) | finest).all())
    assert bool(finest[0])
    assert not bool(finest.all())


def test_frozen_output_is_near_the_float_masters() -> None:
    torch.manual_seed(2)
    layer = IntConv(32, 8, 3)
    x = torch.randint(-ACTIVATION_MAX, ACTIVATION_MAX + 1, (1, 32, 6, 6)).float()
    with torch.no_grad():
        before = layer(x)
        values = layer.quantise()
        layer.load_integers(values)
        half_step = 0.5 * torch.pow(2.0, -values["shift"].double()).view(1, -1, 1, 1)
        bound = half_step * (ACTIVATION_MAX * 32 * 9 + 1)
        assert bool(((layer(x) - before).abs() <= bound + 1e-3).all())
        layer.frozen = False
        again = layer.quantise()
    assert torch.allclose(layer(x), before, atol=float(bound.max()))
    for name in ("weight", "bias"):
        ratio = torch.pow(2.0, (again["shift"] - values["shift"]).double())
        shaped = ratio.view(-1, *[1] * (values[name].dim() - 1))
        assert torch.equal(again[name].double(), values[name].double() * shaped), (
            "masters are not the integers"
        )


def broken(name: str, change: Callable[[Tensor], Tensor]) -> Integers:
    _, values = frozen(4, 3, 3, 1.0, 0, seed=9)
    return {**values, name: change(values[name])}


def put(value: float, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        out = tensor.to(dtype or tensor.dtype).clone()
        out.view(-1)[0] = value
        return out

    return change


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (broken("weight", put(WEIGHT_MAX + 1)), "2\\*\\*24"),
        (broken("weight", put(-WEIGHT_MAX - 1)), "2\\*\\*24"),
        (broken("bias", put(EXACT_SUM)), "2\\*\\*24"),
        (broken("bias", put(-EXACT_SUM)), "2\\*\\*24"),
        (broken("shift", put(MAX_SHIFT + 1)), "shift"),
        (broken("shift", put(-MAX_SHIFT - 1)), "shift"),
        (broken("weight", lambda w: w[:, :, :1]), "shape"),
        (broken("weight", lambda w: w[:2]), "shape"),
        (broken("bias", lambda b: b[:2]), "shape"),
        (broken("shift", lambda s: s[:2]), "shape"),
        (broken("weight", put(0.5, torch.float32)), "integer"),
        (broken("weight", put(float("nan"), torch.float32)), "integer"),
        (broken("bias", put(0.5, torch.float32)), "integer"),
        (broken("shift", put(0.5, torch.float32)), "integer"),
    ],
)
def test_load_refuses(values: Integers, reason: str) -> None:
    layer = IntConv(4, 3, 3)
    with pytest.raises(WeightsError, match=reason):
        layer.load_integers(values)
    assert not layer.frozen


def test_load_refuses_a_sum_that_only_just_overflows() -> None:
    cin = 130
    weight = torch.full((1, cin, 1, 1), WEIGHT_MAX, dtype=torch.int16)
    slack = EXACT_SUM - cin * WEIGHT_MAX * ACTIVATION_MAX
    shift = torch.zeros(1, dtype=torch.int8)
    assert slack < 0, "too few channels to reach the bound"
    with pytest.raises(WeightsError, match="2\\*\\*24"):
        IntConv(cin, 1).load_integers(
            {"weight": weight, "bias": torch.zeros(1, dtype=torch.int32), "shift": shift}
        )
    weight[:, 64:] = 0
    room = EXACT_SUM - 64 * WEIGHT_MAX * ACTIVATION_MAX
    good, bad = (torch.tensor([b], dtype=torch.int32) for b in (room - 1, room))
    IntConv(cin, 1).load_integers({"weight": weight, "bias": good, "shift": shift})
    with pytest.raises(WeightsError, match="2\\*\\*24"):
        IntConv(cin, 1).load_integers({"weight": weight, "bias": bad, "shift": shift})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_quantise_refuses_weights_that_cannot_be_exact(value: float) -> None:
    layer = IntConv(2, 2)
    with torch.no_grad():
        layer.weight[0, 0] = value
    with pytest.raises(WeightsError):
        layer.quantise()


def test_activations_round_half_to_even_within_their_range() -> None:
    x = torch.tensor([-1e9, -127.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5, 1e9])
    assert requantise(x).tolist() == [-127, -127, -2, -2, 0, 0, 2, 2, 126, 127, 127]
    assert rectify(x).tolist() == [0, 0, 0, 0, 0, 0, 2, 2, 126, 127, 127]


def test_rounding_passes_gradients_and_gives_the_same_values_with_them() -> None:
    x = torch.linspace(-300, 300, 12345, requires_grad=True)
    rounded = round_through(x)
    assert torch.equal(rounded, torch.round(x))
    rounded.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))
