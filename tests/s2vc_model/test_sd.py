"""The Stable Diffusion generator at a tiny scale: formula, stateless guidance, weights, LoRA."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from s2vc_model.codec import load_model
from s2vc_model.config import PRESETS, CodecConfig
from s2vc_model.errors import WeightsError
from s2vc_model.lora import PROJECTIONS
from s2vc_model.motion import block_motion, luma
from s2vc_model.network import S2vcNetwork, build_generator
from s2vc_model.sd import SdGenerator, scratch_unet, scratch_vae
from s2vc_model.sd_guidance import GuidedUNet, TemporalFusion
from s2vc_model.state import DiffusionBuffer, FeatureBuffer
from s2vc_model.train.rate import inter_step, intra_step
from s2vc_model.weight_files import save_weights

ADAPTED = PRESETS["sd-tiny"]
TINY = replace(ADAPTED, lora_rank=0)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(7)
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module")
def shared() -> SdGenerator:
    """A generator no test may change, with guidance that acts."""
    torch.manual_seed(11)
    return wake(SdGenerator.from_scratch(TINY).eval())


def wake(generator: SdGenerator) -> SdGenerator:
    for fusion in generator.guided.fusions:
        assert isinstance(fusion, TemporalFusion)
        nn.init.normal_(fusion.out.weight, 0, 0.2)
    return generator


def features(batch: int = 1, height: int = 64, width: int = 128, moving: float = 0.0) -> FeatureBuffer:
    h, w = height // 8, width // 8
    flow = torch.full((batch, 2, h, w), moving)
    return FeatureBuffer(torch.randn(batch, 16, h, w), torch.zeros(batch, 3, height, width), flow)


def run(
    generator: nn.Module, buffer: FeatureBuffer, before: DiffusionBuffer | None
) -> tuple[Tensor, DiffusionBuffer]:
    with torch.inference_mode():
        picture, kept = generator(buffer, before)
    return picture, kept


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (2, 64, 192), (3, 128, 64)])
def test_shapes_at_multiples_of_64(shared: SdGenerator, batch: int, height: int, width: int) -> None:
    picture, kept = run(shared, features(batch, height, width), None)
    again, _ = run(shared, features(batch, height, width, moving=9.0), kept)
    assert picture.shape == again.shape == (batch, 3, height, width)
    assert [f.shape for f in kept.features] == [
        (batch, 16, height // 8, width // 8),
        (batch, 24, height // 16, width // 16),
    ]
    assert kept.picture is picture
    assert picture.isfinite().all()


def test_a_batch_is_its_rows(shared: SdGenerator) -> None:
    both = features(2)
    picture, _ = run(shared, both, None)
    for row in range(2):
        one = FeatureBuffer(both.feature[row : row + 1], both.picture[:1], both.flow[:1])
        torch.testing.assert_close(run(shared, one, None)[0], picture[row : row + 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("timestep", [249, 999])
def test_x0_inverts_the_schedulers_noising(timestep: int) -> None:
    generator = SdGenerator.from_scratch(replace(TINY, timestep=timestep))
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    x0, epsilon = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    noisy = scheduler.add_noise(x0, epsilon, torch.tensor([timestep]))
    torch.testing.assert_close(generator.x0(noisy, epsilon), x0, atol=1e-4, rtol=1e-4)


def test_x0_is_not_rounded_to_half_precision() -> None:
    generator = SdGenerator.from_scratch(TINY)
    x_t, epsilon = torch.randn(4, 8, 8).bfloat16(), torch.randn(4, 8, 8).bfloat16()
    assert torch.equal(generator.x0(x_t, epsilon), generator.x0(x_t.float(), epsilon.float()))


def test_picture_is_the_decoded_x0_of_head_and_unet(shared: SdGenerator) -> None:
    buffer = features()
    picture, _ = run(shared, buffer, None)
    with torch.inference_mode():
        f = shared.pixels(buffer.feature)
        epsilon = shared.guided.unet(f, 999, shared.semantic(buffer.feature)).sample
        alpha, sigma = shared.alpha, shared.sigma
        x0 = (shared.head(f) - sigma * epsilon) / alpha
        expected = shared.vae.decode(x0 / shared.vae.config.scaling_factor).sample
    torch.testing.assert_close(picture, expected, atol=1e-4, rtol=1e-4)


def test_tokens_and_timestep_reach_the_unet(shared: SdGenerator) -> None:
    f, tokens = torch.randn(1, 20, 8, 8), torch.randn(1, 3, 24)
    with torch.inference_mode():
        here, _ = shared.guided(f, torch.tensor([999]), tokens, None)
        other_tokens, _ = shared.guided(f, torch.tensor([999]), tokens.flip(2), None)
        other_time, _ = shared.guided(f, torch.tensor([1]), tokens, None)
    assert not torch.allclose(here, other_tokens, atol=1e-6)
    assert not torch.allclose(here, other_time, atol=1e-6)


def test_guidance_starts_as_nothing_and_acts_once_trained() -> None:
    generator = SdGenerator.from_scratch(TINY).eval()
    buffer = features()
    _, before = run(generator, features(), None)
    alone, _ = run(generator, buffer, None)
    assert torch.equal(run(generator, buffer, before)[0], alone)
    wake(generator)
    assert torch.equal(run(generator, buffer, None)[0], alone)
    assert not torch.allclose(run(generator, buffer, before)[0], alone, atol=1e-3)


@pytest.mark.parametrize("level", [0, 1])
def test_each_guided_block_listens(level: int) -> None:
    generator = SdGenerator.from_scratch(TINY).eval()
    fusion = generator.guided.fusions[level]
    assert isinstance(fusion, TemporalFusion)
    nn.init.normal_(fusion.out.weight, 0, 0.2)
    buffer = features()
    _, before = run(generator, features(), None)
    changed = list(before.features)
    changed[level] = changed[level] + torch.randn_like(changed[level])
    base, _ = run(generator, buffer, before)
    other, _ = run(generator, buffer, DiffusionBuffer(tuple(changed), before.picture))
    assert not torch.allclose(base, other, atol=1e-4)


def test_guidance_is_moved_along_the_flow(shared: SdGenerator) -> None:
    still = features()
    moving = FeatureBuffer(still.feature, still.picture, still.flow + 16.0)
    _, before = run(shared, features(), None)
    assert not torch.allclose(run(shared, still, before)[0], run(shared, moving, before)[0], atol=1e-4)


def test_fused_features_are_what_is_kept_and_what_the_unet_goes_on_with(shared: SdGenerator) -> None:
    buffer = features()
    _, before = run(shared, features(), None)
    _, alone = run(shared, buffer, None)
    _, guided = run(shared, buffer, before)
    expected = shared.guided.fusions[0](alone.features[0], before.features[0])
    torch.testing.assert_close(guided.features[0], expected, atol=1e-5, rtol=1e-5)


def test_calls_and_gops_leave_nothing_behind(shared: SdGenerator) -> None:
    gop = [features() for _ in range(3)]

    def pictures() -> list[Tensor]:
        out, before = [], None
        for frame in gop:
            picture, before = run(shared, frame, before)
            out.append(picture)
        return out

    tensors = {name: value.clone() for name, value in shared.state_dict().items()}
    first = pictures()
    run(shared, features(2, 128, 64), None)
    second = pictures()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(value, tensors[name]) for name, value in shared.state_dict().items())


def test_calls_in_threads_do_not_see_each_other(shared: SdGenerator) -> None:
    frames, (_, before) = [features() for _ in range(8)], run(shared, features(), None)
    guides = [before if i % 2 else None for i in range(8)]
    serial = [run(shared, f, b)[0] for f, b in zip(frames, guides, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: run(shared, *pair)[0], zip(frames, guides, strict=True)))
    assert all(torch.equal(a, b) for a, b in zip(serial, together, strict=True))


def test_a_failed_call_leaves_no_trace(shared: SdGenerator) -> None:
    buffer, (_, before) = features(), run(shared, features(), None)
    expected = run(shared, buffer, before)[0]
    wrong = DiffusionBuffer((before.features[0][:, :5], before.features[1]), before.picture)
    with pytest.raises(RuntimeError):
        run(shared, buffer, wrong)
    assert torch.equal(run(shared, buffer, before)[0], expected)


def test_a_copy_is_guided_by_its_own_weights(shared: SdGenerator) -> None:
    buffer, (_, before) = features(), run(shared, features(), None)
    other = copy.deepcopy(shared)
    expected = run(shared, buffer, before)[0]
    for fusion in other.guided.fusions:
        assert isinstance(fusion, TemporalFusion)
        nn.init.zeros_(fusion.out.weight)
    assert torch.equal(run(other, buffer, before)[0], run(shared, buffer, None)[0])
    assert torch.equal(run(shared, buffer, before)[0], expected)


def test_a_unet_that_drops_the_call_is_refused() -> None:
    unet = scratch_unet(TINY)
    guided = GuidedUNet(unet)
    forward = unet.forward
    unet.forward = lambda *args, cross_attention_kwargs, **kw: forward(*args, **kw)
    with pytest.raises(RuntimeError, match="0 of 2"):
        guided(torch.randn(1, 20, 8, 8), torch.tensor([999]), torch.randn(1, 1, 24), None)


@pytest.mark.slow
def test_guidance_compiles_into_one_graph(shared: SdGenerator) -> None:
    compiled = torch.compile(shared.guided, backend="eager", fullgraph=True)
    f, tokens = torch.randn(1, 20, 8, 8), torch.randn(1, 1, 24)
    before: tuple[Tensor, ...] | None = None
    with torch.no_grad():
        for _ in range(3):
            plain, compiled_out = (g(f, shared.timestep, tokens, before) for g in (shared.guided, compiled))
            torch.testing.assert_close(compiled_out, plain)
            before = plain[1]


def test_gradients_reach_every_part_through_a_guided_frame() -> None:
    generator = wake(SdGenerator.from_scratch(TINY))
    _, before = generator(features(), None)
    picture, _ = generator(features(moving=3.0), before)
    picture.square().mean().backward()
    silent = [name for name, p in generator.named_parameters() if p.grad is None]
    assert silent == []


def test_full_scale_is_stable_diffusion() -> None:
    # Published sizes: 859,520,964 (U-Net, 4 input channels) and 83,653,863 (VAE).
    with torch.device("meta"):
        unet, vae = scratch_unet(PRESETS["sd15"]), scratch_vae(PRESETS["sd15"])
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(unet) == 859_520_964 + (320 - 4) * 9 * 320
    assert count(vae) == 83_653_863
    assert (unet.config.cross_attention_dim, unet.config.attention_head_dim) == (768, 8)
    assert vae.config.scaling_factor == 0.18215


def test_only_the_vae_decoder_is_carried() -> None:
    names = SdGenerator.from_scratch(TINY).vae.state_dict()
    assert {name.split(".")[0] for name in names} == {"decoder", "post_quant_conv"}


def test_config_names_the_generator_and_survives_its_dict() -> None:
    assert isinstance(build_generator(TINY), SdGenerator)
    assert CodecConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    assert PRESETS["sd15"].sd_scale == "full"
    with pytest.raises(ValueError, match="sd_scale"):
        replace(TINY, sd_scale="huge")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A saved U-Net of four input channels, and a whole VAE, as Stable Diffusion ships them."""
    unet, vae = tmp_path / "unet", tmp_path / "vae"
    scratch_unet(replace(TINY, pixel_features=4)).save_pretrained(unet)
    scratch_vae(TINY).save_pretrained(vae)
    return unet, vae


def test_pretrained_weights_are_kept_but_for_the_first_convolution(folders: tuple[Path, Path]) -> None:
    generator = SdGenerator.from_diffusers(TINY, *folders)
    unet, vae = UNet2DConditionModel.from_pretrained(folders[0]), AutoencoderKL.from_pretrained(folders[1])
    mine, theirs = generator.guided.unet.state_dict(), unet.state_dict()
    assert {k for k in theirs if not torch.equal(theirs[k], mine[k])} <= {"conv_in.weight", "conv_in.bias"}
    assert mine["conv_in.weight"].shape == (16, 20, 3, 3)
    assert generator.guided.unet.config.in_channels == 20
    latent = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        assert torch.equal(generator.vae.decode(latent).sample, vae.decode(latent).sample)
    assert run(generator, features(), None)[0].shape == (1, 3, 64, 128)


def test_an_adapted_unet_saves_as_a_plain_diffusers_folder(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    generator = SdGenerator.from_diffusers(TINY, *folders)
    generator.guided.unet.save_pretrained(tmp_path / "again")
    again = SdGenerator.from_diffusers(TINY, tmp_path / "again", folders[1])
    mine, theirs = generator.guided.unet.state_dict(), again.guided.unet.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine if not k.startswith("conv_in"))


def test_folders_that_do_not_fit_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    unet, vae = folders
    with pytest.raises(WeightsError, match="holds a AutoencoderKL"):
        SdGenerator.from_diffusers(TINY, vae, vae)
    with pytest.raises(WeightsError, match="nowhere"):
        SdGenerator.from_diffusers(TINY, tmp_path / "nowhere", vae)
    with pytest.raises(WeightsError, match="cross_attention_dim 24"):
        SdGenerator.from_diffusers(replace(TINY, tokens=32), unet, vae)
    with pytest.raises(WeightsError, match="block_out_channels"):
        SdGenerator.from_diffusers(replace(TINY, unet=(16, 24, 40)), unet, vae)
    with pytest.raises(WeightsError, match="out_channels 4"):
        SdGenerator.from_diffusers(replace(TINY, sample=6), unet, vae)


def test_damaged_folders_are_refused(folders: tuple[Path, Path]) -> None:
    unet, vae = folders
    path, shape = vae / "diffusion_pytorch_model.safetensors", vae / "config.json"
    good = shape.read_text()
    shape.write_text(json.dumps({**json.loads(good), "block_out_channels": [16, 16, 32, 40]}))
    with pytest.raises(WeightsError, match="AutoencoderKL"):
        SdGenerator.from_diffusers(TINY, unet, vae)
    shape.write_text("[]")
    with pytest.raises(WeightsError, match="AutoencoderKL"):
        SdGenerator.from_diffusers(TINY, unet, vae)
    shape.write_text(good)
    whole = load_file(path)
    save_file(
        {k: v for k, v in whole.items() if k != "decoder.conv_out.bias"}, path, metadata={"format": "pt"}
    )
    with pytest.raises(WeightsError, match="conv_out"):
        SdGenerator.from_diffusers(TINY, unet, vae)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="AutoencoderKL"):
        SdGenerator.from_diffusers(TINY, unet, vae)
    path.unlink()
    with pytest.raises(WeightsError, match="AutoencoderKL"):
        SdGenerator.from_diffusers(TINY, unet, vae)


def adapted(strength: float = 0.3) -> SdGenerator:
    """A generator whose two adapters differ and matter."""
    generator = wake(SdGenerator.from_scratch(ADAPTED).eval())
    for name, parameter in generator.guided.unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, 0, strength)
    return generator


def two_frames(generator: SdGenerator, frames: list[FeatureBuffer]) -> list[Tensor]:
    first, before = run(generator, frames[0], None)
    return [first, run(generator, frames[1], before)[0]]


def test_adapters_start_as_nothing() -> None:
    generator, frames = wake(SdGenerator.from_scratch(ADAPTED).eval()), [features(), features()]
    pictures = two_frames(generator, frames)
    for parameter in (p for n, p in generator.guided.unet.named_parameters() if "lora_A" in n):
        nn.init.normal_(parameter, 0, 5.0)
    assert all(torch.equal(a, b) for a, b in zip(two_frames(generator, frames), pictures, strict=True))


@pytest.mark.parametrize(("kind", "changed"), [("intra", 0), ("inter", 1)])
def test_each_adapter_is_read_by_its_own_frames(kind: str, changed: int) -> None:
    generator, frames = adapted(), [features(), features()]
    first, before = run(generator, frames[0], None)
    pictures = [first, run(generator, frames[1], before)[0]]
    for name, parameter in generator.guided.unet.named_parameters():
        if f"lora_B.{kind}" in name:
            nn.init.zeros_(parameter)
    again = [run(generator, frames[0], None)[0], run(generator, frames[1], before)[0]]
    assert not torch.allclose(again[changed], pictures[changed], atol=1e-3)
    assert torch.equal(again[1 - changed], pictures[1 - changed])


def test_fused_adapters_give_the_same_pictures() -> None:
    generator, frames = adapted(), [features(), features()]
    pictures = two_frames(generator, frames)
    generator.for_inference()
    for a, b in zip(two_frames(generator, frames), pictures, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name, _ in generator.named_parameters())


def test_fused_unets_share_all_but_the_adapted_projections() -> None:
    generator = adapted()
    plain = SdGenerator.from_scratch(TINY).guided.unet
    generator.for_inference()
    first, later = (dict(unet.named_parameters()) for unet in generator.guided._unets)
    assert first.keys() == later.keys() == dict(plain.named_parameters()).keys()
    own = {name for name in first if first[name] is not later[name]}
    assert own == {
        name
        for name in first
        if name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"))
    }


def test_a_second_set_of_projections_costs_what_is_said() -> None:
    with torch.device("meta"):
        unet = scratch_unet(PRESETS["sd15"])
    layers = [m for n, m in unet.named_modules() if n.endswith(tuple(f".{p}" for p in PROJECTIONS))]
    assert sum(m.weight.numel() for m in layers) == 93_511_680
    assert 2 * sum(64 * (m.in_features + m.out_features) for m in layers) == 25_509_888


def test_unfused_unets_share_every_tensor_wherever_they_go() -> None:
    generator = adapted().to(torch.float64)
    first, later = (dict(unet.named_parameters()) for unet in generator.guided._unets)
    assert all(first[name] is later[name] for name in first)
    assert set(first) == set(dict(generator.guided.unet.named_parameters()))
    assert {p.dtype for p in first.values()} == {torch.float64}


def test_a_copy_reads_its_own_adapters() -> None:
    generator, frames = adapted(), [features(), features()]
    pictures = two_frames(generator, frames)
    other = copy.deepcopy(generator)
    for name, parameter in other.guided.unet.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(parameter)
    assert not torch.allclose(two_frames(other, frames)[1], pictures[1], atol=1e-3)
    assert torch.equal(two_frames(generator, frames)[1], pictures[1])


def test_adapters_of_threads_do_not_mix() -> None:
    generator, (_, before) = adapted(), run(adapted(), features(), None)
    jobs = [(features(), before if n % 2 else None) for n in range(8)]
    serial = [run(generator, *job)[0] for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: run(generator, *job)[0], jobs))
    assert all(torch.equal(a, b) for a, b in zip(serial, together, strict=True))


def test_one_backward_pass_trains_both_adapters_and_the_new_parts_only() -> None:
    generator = adapted()
    pictures = []
    picture, before = generator(features(), None)
    pictures = [picture, generator(features(moving=3.0), before)[0]]
    sum(p.square().mean() for p in pictures).backward()
    unet = generator.guided.unet
    trained = {n for n, p in unet.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained == {n for n, p in unet.named_parameters() if p.requires_grad}
    assert {n for n in trained if "lora_" not in n} == {"conv_in.weight", "conv_in.bias"}
    assert {n.split(".")[-2] for n in trained if "lora_" in n} == {"intra", "inter"}
    where = {n.split(".lora_")[0].rpartition(".attn")[2][2:] for n in trained if "lora_" in n}
    assert where == set(PROJECTIONS)
    assert all(p.requires_grad for p in generator.guided.fusions.parameters())


def test_bf16_weights_stay_near_float32() -> None:
    generator, frames = adapted(), [features(), features()]
    full = two_frames(copy.deepcopy(generator), frames)
    generator.for_inference(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        half = two_frames(generator, frames)
    for a, b in zip(half, full, strict=True):
        assert a.dtype == torch.bfloat16
        error = float((a.float() - b).square().mean() / b.square().mean())
        assert 0 < error < 1e-3


def test_training_steps_run_through_the_whole_codec() -> None:
    net = S2vcNetwork(TINY)
    x0, x1 = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    q = torch.tensor([20])
    picture, state, bits = intra_step(net, x0, q)
    motion = block_motion(luma(x1), luma(x0))
    after, following, more, _ = inter_step(net, x1, q, state, motion)
    assert picture.shape == after.shape == (1, 3, 64, 64)
    assert state.diffusion is not None
    assert following.diffusion is not None
    loss = (after - x1).abs().mean() + (picture - x0).abs().mean() + 1e-3 * (bits + more).sum()
    loss.backward()
    for part in (net.intra.analysis, net.inter.analysis, net.generator):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_encodes_and_decodes_end_to_end(tmp_path: Path) -> None:
    network = S2vcNetwork(ADAPTED)
    wake(network.generator)
    save_weights(tmp_path, network, {"trained": False})
    codec = load_model(tmp_path, "cpu")
    rng = np.random.default_rng(3)
    clips = [rng.integers(0, 256, (frames, 50, 70, 3), dtype=np.uint8) for frames in (2, 3)]
    coded = codec.encode_gops(clips, 30)
    decoded = codec.decode_gops(coded)
    assert codec.preset == "sd-tiny"
    assert [d.shape for d in decoded] == [c.shape for c in clips]
    alone = codec.decode_gops(coded[1:])[0]
    assert np.abs(alone.astype(int) - decoded[1]).max() <= 1
