"""What each of two training processes does and saves for `test_ranks.py` to look at. Nothing here is a test."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import jobs.train
from s2vc_model.config import PRESETS
from s2vc_model.errors import TrainingError
from s2vc_model.network import S2vcNetwork
from s2vc_model.train import loop, rate
from s2vc_model.train.checkpoint import save_checkpoint
from s2vc_model.train.data import Bank, BankConfig, Batch, with_motion
from s2vc_model.train.loop import RunConfig, Trainer
from s2vc_model.train.losses import Perceptual
from s2vc_model.train.ranks import Ranks, join, leave
from s2vc_model.train.recipe import Stage, Weights
from s2vc_model.train.step import ChunkStep, Dials, Optimiser
from tests.media import make_clip
from tests.s2vc_model.networks import TINY, tiny_network

CPU = torch.device("cpu")
WORLD = 2
QUALITIES = (10, 50)
STREAM = Stage("streams", 3, frames=2, chunks=2, size=64, batch=WORLD, warmup=1)
PAIRS = Stage(
    "pairs",
    4,
    frames=2,
    chunks=1,
    size=64,
    batch=1,
    warmup=1,
    intra_share=0.5,
    intra_batch=1,
    copy_intra=True,
)
ONCE = Stage("", 1, frames=1, chunks=1, size=64, batch=1, warmup=1)
SD_STAGES = (
    replace(ONCE, name="intra", perceptual_after=1),
    replace(ONCE, name="pairs", frames=2, copy_intra=True, perceptual_after=1),
    replace(ONCE, name="streams", frames=2, chunks=2),
)
STOP_AFTER = 3


def write_inputs(folder: Path) -> None:
    """A clip, and a checkpoint to start from."""
    (folder / "clips").mkdir()
    make_clip(folder / "clips" / "a.mkv", frames=6, size=(256, 224), codec="ffv1", pix_fmt="bgr0")
    save_checkpoint(folder / "start.safetensors", TINY, tiny_network().state_dict(), {})


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def three_steps(ranks: Ranks) -> dict[str, Tensor]:
    """Weights after three steps on crops, qualities and noise that are the same however many ranks share them."""
    batch_of_all = with_motion(
        torch.rand(WORLD, 4, 3, 64, 64, generator=torch.Generator().manual_seed(4)) * 2 - 1
    )
    mine = slice(ranks.rank * WORLD // ranks.size, (ranks.rank + 1) * WORLD // ranks.size)
    batch = Batch(*(getattr(batch_of_all, name)[mine] for name in ("frames", "motion", "trust")))
    network = tiny_network()
    dials = Dials(CPU, 1e-3)
    for dial in (dials.rate, dials.motion):
        dial.fill_(0.1)
    stage = replace(STREAM, batch=WORLD // ranks.size)
    step = ChunkStep(stage, Weights(), network, Optimiser(network, dials, ranks), Perceptual(CPU))
    step.q.copy_(torch.tensor(QUALITIES)[mine])
    for chunk in (0, 1, 0):
        step.load(batch, chunk)
        step(chunk == 0, False)
    return copied(network)


def copied(network: S2vcNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def without_noise() -> None:
    """Replace the noise of the rate by a constant."""
    rate._noisy = lambda x: x + 0.2


class Watched(Bank):
    """A bank that remembers a mark of each crop it gave."""

    def draw(self, batch: int, frames: int, size: int, *, enlarged: bool = False) -> Batch:
        drawn = super().draw(batch, frames, size, enlarged=enlarged)
        self.drawn = [*getattr(self, "drawn", []), (frames, round(float(drawn.frames.double().mean()), 9))]
        return drawn


def trained(
    ranks: Ranks, bank: Watched, network: S2vcNetwork, stages: tuple[Stage, ...], first_step: int = 0
) -> dict[str, Any]:
    """Weights, averages, log and crops of a run. Each rank starts from weights of its own until they are spread."""
    bank.drawn = []
    lines: list[dict[str, object]] = []
    ranks.spread(network)
    trainer = Trainer(network, bank, RunConfig(600, first_step=first_step, log_every=1), lines.append, ranks)
    averaged = trainer.run(stages)
    return {"weights": copied(network), "averaged": averaged, "log": lines, "crops": bank.drawn}


def stopped(ranks: Ranks, bank: Bank) -> int:
    """Steps until the budget ends by rank 0's clock, which goes otherwise than rank 1's."""
    trainer = Trainer(tiny_network(), bank, RunConfig(STOP_AFTER + 0.5), lambda entry: None, ranks)
    told = iter(range(1000))
    trainer.elapsed = lambda: float(next(told)) if ranks.first else 1e9  # type: ignore[method-assign]
    trainer.run([replace(ONCE, name="intra", steps=50, perceptual_after=99)])
    return trainer.step


def command(folder: Path, start: str, out: str, *more: str) -> int:
    """Two steps of the training command; its exit code."""
    toy = [f"intra.{item}" for item in ("batch=1", "size=64", "steps=2", "warmup=1", "perceptual_after=9")]
    where = ["--data", str(folder / "clips"), "--init", str(folder / start), "--out", str(folder / out)]
    how = ["--stages", "intra", "--set", *toy, "--log-every", "1", "--device", "cpu"]
    return jobs.train.main([*where, *how, *more])


def deserted(folder: Path, rank: int) -> tuple[int, str]:
    """Exit code and complaint of the command when rank 1 dies after the first step. Only rank 0 comes back."""
    if rank:
        jobs.train._quiet = lambda entry: os._exit(0)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = command(folder, "start.safetensors", "deserted")
    return code, said.getvalue()


def left_waiting(folder: Path) -> str:
    """What rank 0 says when rank 1 is there and does nothing."""
    ranks, _ = join("cpu", timedelta(seconds=2))
    done = folder / "waited"
    if not ranks.first:
        while not done.exists():
            time.sleep(0.05)
        return ""
    try:
        ranks.average([torch.zeros(3)])
    except TrainingError as error:
        return str(error)
    finally:
        done.touch()
    return "nothing"


def run_rank(rank: int, folder: Path, ports: list[int]) -> None:
    """All of it, as one of two ranks; saves ``rank<n>.pt``."""
    port = iter(ports)
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
    }

    def together(do: Callable[[Ranks], Any]) -> Any:
        os.environ["MASTER_PORT"] = str(next(port))
        ranks, _ = join("cpu")
        try:
            return do(ranks)
        finally:
            leave()

    bank = Watched([folder / "clips" / "a.mkv"], CPU, BankConfig(min_side=64))
    loop.Perceptual = _once(Perceptual)  # type: ignore[misc]
    out: dict[str, Any] = {}
    noisy = rate._noisy
    without_noise()
    out["three steps"] = together(three_steps)
    rate._noisy = noisy

    def runs(ranks: Ranks) -> None:
        out["stages"] = trained(ranks, bank, tiny_network(rank), (PAIRS, STREAM))
        out["later"] = trained(ranks, bank, tiny_network(), (replace(STREAM, steps=1),), PAIRS.steps)
        out["stopped"] = stopped(ranks, bank)
        out["gathered"] = ranks.gather(torch.tensor([[rank, 5]]))
        torch.manual_seed(rank)
        out["sd"] = trained(ranks, bank, S2vcNetwork(PRESETS["sd-tiny"]), SD_STAGES)

    together(runs)
    os.environ["MASTER_PORT"] = str(next(port))
    out["command"] = command(folder, "start.safetensors", "one")
    os.environ["MASTER_PORT"] = str(next(port))
    out["later command"] = command(
        folder, "one/checkpoint.safetensors", "two", "--export", str(folder / "weights")
    )
    os.environ["MASTER_PORT"] = str(next(port))
    out["waiting"] = left_waiting(folder)
    leave()
    torch.save(out, folder / f"rank{rank}.pt")
    os.environ["MASTER_PORT"] = str(next(port))
    out["deserted"] = deserted(folder, rank)
    torch.save(out, folder / f"rank{rank}.pt")


def _once(make: Callable[..., Perceptual]) -> Callable[..., Perceptual]:
    """Loads VGG once for all trainers."""
    made: list[Perceptual] = []

    def give(device: torch.device, **options: object) -> Perceptual:
        if not made:
            made.append(make(device, **options))
        return made[0]

    return give
