"""From Stable Diffusion's folders to a model that codes, is described, and is trained as any other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from jobs.train import main as train
from s2vc_model.codec import S2vcCodec, load_model
from s2vc_model.config import PRESETS
from s2vc_model.errors import WeightsError
from s2vc_model.import_sd import import_sd
from s2vc_model.sd import scratch_unet, scratch_vae
from s2vc_model.weight_facts import weight_facts
from s2vc_model.weight_files import digest_of, load_weights, save_weights
from s2vc_ray.cli import main
from tests.media import make_clip, pictures

TINY = PRESETS["sd-tiny"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sd")
    torch.manual_seed(5)
    scratch_unet(replace(TINY, pixel_features=4)).save_pretrained(root / "unet")
    scratch_vae(TINY).save_pretrained(root / "vae")
    return root / "unet", root / "vae"


@pytest.fixture(scope="module")
def weights(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "sd"
    import_sd(*folders, out, width="tiny")
    return out


@pytest.fixture(scope="module")
def codec(weights: Path) -> S2vcCodec:
    return S2vcCodec(load_weights(weights), torch.device("cpu"), lockstep=True)


def test_what_was_pretrained_is_kept(folders: tuple[Path, Path], weights: Path) -> None:
    generator = load_weights(weights).network.generator
    unet = UNet2DConditionModel.from_pretrained(folders[0]).state_dict()
    vae = AutoencoderKL.from_pretrained(folders[1]).state_dict()
    mine = {k.replace(".base_layer", ""): v for k, v in generator.guided.unet.state_dict().items()}
    for name in unet.keys() - {"conv_in.weight", "conv_in.bias"}:
        torch.testing.assert_close(mine[name], unet[name], atol=1e-4, rtol=1e-3)
    for name, value in generator.vae.state_dict().items():
        torch.testing.assert_close(value, vae[name], atol=1e-4, rtol=1e-3)


def test_the_rest_comes_from_the_seed(folders: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    same = import_sd(*folders, tmp_path / "same", width="tiny")
    assert torch.equal(torch.get_rng_state(), state)
    assert same.sha256 == digest_of(weights / "model.safetensors")
    assert import_sd(*folders, tmp_path / "other", seed=1, width="tiny").sha256 != same.sha256


def test_three_gops_together_are_each_alone(codec: S2vcCodec) -> None:
    clips = [pictures(n, 64, 48, seed=n) for n in (3, 1, 2)]
    together, alone = codec.encode_gops(clips, 40), [codec.encode_gops([clip], 40)[0] for clip in clips]
    assert [g.checks for g in together] == [g.checks for g in alone]
    assert [g.to_payload() for g in together] == [g.to_payload() for g in alone]
    for a, b in zip(codec.decode_gops(together), (codec.decode_gops([g])[0] for g in alone), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


def test_bf16_pictures_stay_near_and_symbols_the_same(codec: S2vcCodec, weights: Path) -> None:
    loaded = load_weights(weights)
    loaded.network.for_inference(torch.bfloat16)
    half = S2vcCodec(loaded, torch.device("cpu"), lockstep=True)
    half._half = True
    (gop,) = codec.encode_gops([pictures(3, 64, 48)], 40)
    full, other = (c.decode_gops([gop])[0].astype(float) for c in (codec, half))
    error = np.square(full - other).mean()
    assert error > 0
    assert 10 * np.log10(255**2 / error) > 30


def test_facts(weights: Path) -> None:
    facts, network = weight_facts(str(weights)), load_weights(weights).network
    assert (facts.preset, facts.sha256) == ("sd-tiny", digest_of(weights / "model.safetensors"))
    assert facts.parameters["generator"] == sum(p.numel() for p in network.generator.parameters())
    assert facts.parameters["intra_transform"] == sum(p.numel() for p in network.intra.parameters())
    assert facts.notes["trained"] is False
    assert set(facts.notes["unet_sha256"]) == {"diffusion_pytorch_model.safetensors"}


def test_commands(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet, vae = map(str, folders)
    out = str(tmp_path / "w")
    with pytest.raises(SystemExit) as ended:
        main(["model", "import-sd", "--unet", unet, "--vae", vae, "--width", "tiny", out])
    assert not ended.value.code
    said = capsys.readouterr()
    assert digest_of(Path(out) / "model.safetensors") in said.out
    assert "NOT TRAINED" in said.err
    with pytest.raises(SystemExit):
        main(["model", "info", out, "--json"])
    assert json.loads(capsys.readouterr().out)["preset"] == "sd-tiny"
    with pytest.raises(SystemExit):
        main(["model", "info", "small"])
    assert "not recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("swap", "width", "said"),
    [
        ("vae", "tiny", "holds a AutoencoderKL"),
        ("unet", "full", "cross_attention_dim"),
        ("nowhere", "tiny", "nowhere"),
    ],
)
def test_wrong_folders_say_so(
    folders: tuple[Path, Path],
    tmp_path: Path,
    swap: str,
    width: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unet = folders[0].parent / swap
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "model",
                "import-sd",
                "--unet",
                str(unet),
                "--vae",
                str(folders[1]),
                "--width",
                width,
                str(tmp_path / "w"),
            ]
        )
    assert ended.value.code == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_vae_of_another_shape_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = AutoencoderKL.from_config({**AutoencoderKL.load_config(folders[1]), "scaling_factor": 0.13})
    other.save_pretrained(tmp_path / "vae")
    with pytest.raises(WeightsError, match="scaling_factor"):
        import_sd(folders[0], tmp_path / "vae", tmp_path / "w", width="tiny")


def test_nothing_is_written_over(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "mine.txt").write_text("kept")
    with pytest.raises(WeightsError, match="new folder"):
        import_sd(*folders, tmp_path / "w", width="tiny")
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["mine.txt"]


def test_folders_that_hold_half_precision_only_are_read(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for folder in folders:
        copy = tmp_path / folder.name
        copy.mkdir()
        (copy / "config.json").write_bytes((folder / "config.json").read_bytes())
        halves = {k: v.half() for k, v in load_file(folder / "diffusion_pytorch_model.safetensors").items()}
        name = "diffusion_pytorch_model.fp16.safetensors"
        save_file(halves, copy / name, metadata={"format": "pt"})
    made = import_sd(tmp_path / "unet", tmp_path / "vae", tmp_path / "w", width="tiny")
    codec = load_model(made.directory, "cpu")
    assert codec.decode_gops(codec.encode_gops([pictures(1, 32, 32)], 30))[0].shape == (1, 32, 32, 3)


def test_what_was_prepared_for_inference_is_not_saved(weights: Path, tmp_path: Path) -> None:
    loaded = load_weights(weights)
    S2vcCodec(loaded, torch.device("cpu"))
    with pytest.raises(WeightsError, match="afresh"):
        save_weights(tmp_path / "w", loaded.network, {})
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("stage", ["intra", "streams"])
def test_training_stages_run_as_they_are(weights: Path, tmp_path: Path, stage: str) -> None:
    (tmp_path / "clips").mkdir()
    make_clip(tmp_path / "clips" / "a.mp4", frames=8, size=(256, 224))
    frames = [] if stage == "intra" else ["frames=2", "chunks=2"]
    toy = [
        f"{stage}.{item}" for item in ("batch=1", "size=64", "steps=3", "warmup=1", "intra_share=0", *frames)
    ]
    folders = ["--init", weights, "--data", tmp_path / "clips", "--out", tmp_path / "run"]
    options = ["--stages", stage, "--set", *toy, "--export", tmp_path / "w", "--log-every", "1"]
    code = train([*map(str, [*folders, *options]), "--device", "cpu"])
    assert code == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert not any(line["skipped"] for line in lines)
    before, after = (
        dict(load_weights(w).network.generator.guided.unet.named_parameters())
        for w in (weights, tmp_path / "w")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {n.split(".")[-2] for n in moved if "lora_" in n} == (
        {"intra"} if stage == "intra" else {"intra", "inter"}
    )
    frozen = [n for n in before if "lora_" not in n and not n.startswith("conv_in.")]
    assert all(torch.allclose(before[n], after[n], rtol=2e-3, atol=1e-4) for n in frozen)
    codec = load_model(tmp_path / "w", "cpu")
    assert codec.decode_gops(codec.encode_gops([pictures(2, 64, 48)], 30))[0].shape == (2, 48, 64, 3)
