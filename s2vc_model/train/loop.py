"""Runs stages within a time budget, logs JSON lines, keeps an EMA, and hands back the averaged network."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from s2vc_model.config import QUALITIES
from s2vc_model.network import S2vcNetwork
from s2vc_model.train.average import STEADY, Average
from s2vc_model.train.companions import Companions
from s2vc_model.train.data import Bank, Batch
from s2vc_model.train.finish import learning_alone
from s2vc_model.train.keeper import Ending, Keeper
from s2vc_model.train.losses import Perceptual
from s2vc_model.train.ranks import Ranks
from s2vc_model.train.recipe import Stage, Weights
from s2vc_model.train.step import ChunkStep, Dials, Optimiser
from s2vc_model.transforms import start_inter_from_intra

EXTRAS = ("semantic", "adversary")
"""Logged where a stage has them."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One training run.

    ``budget_s`` seconds include the anneal of ``anneal_steps`` at the end of the last stage and the last checkpoint's
    writing. ``first_step`` counts the steps taken before this run: several ranks draw by it, so that a later run goes
    on to other crops. ``half`` is whether networks compute in bf16; None: on a GPU.
    """

    budget_s: float
    anneal_steps: int = 0
    seed: int = 0
    first_step: int = 0
    log_every: int = 100
    half: bool | None = None
    weights: Weights = field(default_factory=Weights)


class Trainer:
    """Trains a network through stages.

    Args:
        net: on its device, channels-last; trained in place.
        log: receives one dict per ``log_every`` steps, with means over all ranks; called on each of them.
        ranks: the processes that train together; all start from the same network and bank.
        keeper: writes checkpoints, of the first rank.
        ending: lets the run be ended early, by what the first rank is told.
        companions: what the stages ask for beside the network, the same on all ranks.
    """

    def __init__(
        self,
        net: S2vcNetwork,
        bank: Bank,
        config: RunConfig,
        log: Callable[[dict[str, object]], None],
        ranks: Ranks | None = None,
        keeper: Keeper | None = None,
        ending: Ending | None = None,
        companions: Companions | None = None,
    ) -> None:
        self.started = time.monotonic()
        torch.manual_seed(config.seed)
        self.ranks = ranks or Ranks()
        self.keeper, self.ending = keeper, ending or Ending()
        self.companions = companions or Companions()
        self.net, self.bank, self.config, self.log = net, bank, config, log
        self.device = bank.device
        self.perceptual = Perceptual(self.device, half=config.half)
        self.average = Average(net)
        self.step = 0

    def run(self, stages: Sequence[Stage]) -> dict[str, Tensor]:
        """Train the stages in order; returns the averaged tensors, which the keeper has written."""
        cuda = self.device.type == "cuda"
        side = torch.cuda.stream(torch.cuda.Stream()) if cuda else contextlib.nullcontext()
        with side:
            for number, stage in enumerate(stages):
                last = number == len(stages) - 1
                if stage.alone:
                    self.net.load_state_dict(self.average.state(), strict=False)
                with learning_alone(self.net, stage):
                    if stage.alone:
                        self.average.restart(STEADY)
                    self._stage(stage, last)
            if cuda:
                torch.cuda.synchronize()
        averaged = self.average.state()
        if self.keeper:
            self.keeper.keep(averaged, self.step, self.elapsed(), complete=not self.ending.signal)
        return averaged

    def clock(self) -> float:
        """Seconds used and those the last checkpoint will need, the same on all ranks; endless when asked to end."""
        reserve = self.keeper.reserve_s if self.keeper else 0.0
        return self.ranks.from_first(math.inf if self.ending.signal else self.elapsed() + reserve)

    def keep_if_due(self) -> None:
        """Write a checkpoint if the last one is old."""
        if self.keeper and self.keeper.due(self.elapsed()):
            self.keeper.keep(self.average.state(), self.step, self.elapsed(), complete=False)

    def elapsed(self) -> float:
        """Seconds since the trainer was made."""
        return time.monotonic() - self.started

    def _stage(self, stage: Stage, last: bool) -> None:
        if stage.copy_intra:
            with torch.no_grad():
                start_inter_from_intra(self.net.inter, self.net.intra)
                start_inter_from_intra(self.net.inter_prior, self.net.intra_prior)
            self.average.restart()
        dials = Dials(self.device, stage.lr)
        opt = Optimiser(self.net, dials, self.ranks, self.companions.beside_the_codec() if stage.semantic else ())
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        beside = self.perceptual, self.companions
        main = ChunkStep(stage, self.config.weights, self.net, opt, *beside, self.config.half)
        intra = main
        if stage.intra_share:
            intra = ChunkStep(stage.intra_shape(), self.config.weights, self.net, opt, *beside, self.config.half)
        clock = _Clock(self, stage, dials, self.config.anneal_steps if last else 0)
        batch: Batch | None = None
        chunk = 0
        while clock.running():
            at = self.config.first_step + self.step
            self.ranks.seed(self.config.seed, at, shared=True)
            share = stage.intra_share * stage.chunks / (1 + stage.intra_share * (stage.chunks - 1))
            only_intra = chunk == 0 and intra is not main and float(torch.rand(())) < share
            perceptual = clock.here >= stage.perceptual_after and (
                stage.perceptual_every == 1 or float(torch.rand(())) * stage.perceptual_every < 1
            )
            self.ranks.seed(self.config.seed, at)
            step = intra if only_intra else main
            if only_intra or chunk == 0:
                shape = step.stage
                frames = shape.frames * (1 if only_intra else shape.chunks)
                enlarged = stage.enlarged > 0 and float(torch.rand(())) < stage.enlarged
                batch = self.bank.draw(shape.batch, frames, shape.size, enlarged=enlarged)
                step.q.copy_(qualities(stage, shape.batch, self.device))
            assert batch is not None
            step.load(batch, 0 if only_intra else chunk)
            report = step(only_intra or chunk == 0, perceptual)
            if not only_intra:
                chunk = (chunk + 1) % stage.chunks
            self.average.update()
            self.step += 1
            clock.tick(report, step, opt, perceptual)


def qualities(stage: Stage, number: int, device: torch.device) -> Tensor:
    """Random quality indexes (``number``,) of a stage."""
    drawn = torch.randint(0, QUALITIES, (number,), device=device)
    if not stage.rare_below:
        return drawn
    often = torch.randint(stage.rare_below, QUALITIES, (number,), device=device)
    return torch.where(torch.rand(number, device=device) < 0.25, drawn, often)


class _Clock:
    """Counts a stage's steps, sets its dials by step, and decides when it anneals and ends."""

    def __init__(self, trainer: Trainer, stage: Stage, dials: Dials, anneal: int) -> None:
        self.trainer, self.stage, self.dials, self.anneal = trainer, stage, dials, anneal
        self.here, self.anneal_from = 0, max(0, stage.steps - anneal)
        self.began = self.marked = trainer.clock()
        self.pixels = 0
        self.anneal_ends = stage.steps
        self.lpips = torch.zeros(1, device=trainer.device)

    def running(self) -> bool:
        """Whether to take another step; sets the dials for it."""
        used = self.trainer.clock()
        budget = self.trainer.config.budget_s
        if self.here > 50 and self.here % 20 == 0 and self.here < self.anneal_from:
            pace = (used - self.began) / self.here
            if used + pace * self.anneal >= budget:
                self.anneal_from, self.anneal_ends = self.here, self.here + self.anneal
        if self.here >= self.anneal_ends or used >= budget:
            return False
        self.trainer.keep_if_due()
        stage, here = self.stage, self.here
        start, hold, full = stage.ramp
        progress = 1.0 if here >= full else max(0.0, (here - hold) / max(1, full - hold))
        self.dials.rate.fill_(start ** (1 - progress))
        self.dials.motion.fill_(stage.motion_weight * max(0.1, 1 - here / 3000))
        lr = stage.lr * min(1.0, (here + 1) / max(1, stage.warmup))
        if here >= self.anneal_from and self.anneal:
            lr *= 0.5 * (1 + math.cos(math.pi * (here - self.anneal_from) / self.anneal)) + 0.01
        self.dials.lr.fill_(lr)
        return True

    def tick(self, report: dict[str, Tensor], step: ChunkStep, opt: Optimiser, perceptual: bool) -> None:
        """Count the step just taken and log every so often, of LPIPS the last that was measured."""
        self.here += 1
        if perceptual:
            self.lpips = report["lpips"]
        shape, ranks = step.stage, self.trainer.ranks
        self.pixels += ranks.size * shape.batch * shape.frames * shape.size**2
        if self.here % self.trainer.config.log_every:
            if self.trainer.device.type == "cuda" and self.here % 10 == 0:
                torch.cuda.current_stream().synchronize()
            return
        report = report | {"lpips": self.lpips}
        extras = [name for name in EXTRAS if name in report]
        report |= {name: ranks.gather(report[name]) for name in ("l1", "lpips", "bpp", "q", *extras)}
        now = self.trainer.elapsed()
        low, high = report["q"] < 16, report["q"] >= 48

        def pick(name: str, mask: Tensor) -> float | None:
            return round(report[name][mask].mean().item(), 4) if bool(mask.any()) else None

        span = now - self.marked
        entry: dict[str, object] = {
            "stage": self.stage.name, "step": self.here, "frames": shape.frames, "seconds": round(now, 1),
            "ms": round(1e3 * span / self.trainer.config.log_every, 1), "mpx_s": round(self.pixels / span / 1e6, 1),
            "ramp": round(self.dials.rate.item(), 4), "lr": self.dials.lr.item(),
            "l1": round(report["l1"].mean().item(), 4), "lpips": round(report["lpips"].mean().item(), 4),
            "bpp_first": round(report["bpp"][:, 0].mean().item(), 4),
            "bpp_last": round(report["bpp"][:, -1].mean().item(), 4),
            "low": [pick("l1", low), pick("bpp", low)], "high": [pick("l1", high), pick("bpp", high)],
            "norm": round(report["norm"].item(), 3), "skipped": int(opt.skipped.item()),
        }  # fmt: skip
        self.trainer.log(entry | {name: round(report[name].mean().item(), 4) for name in extras})
        self.marked, self.pixels = now, 0


def json_lines(path: Path) -> Callable[[dict[str, object]], None]:
    """A log sink that appends to ``path`` and prints."""

    def write(entry: dict[str, object]) -> None:
        line = json.dumps(entry)
        with path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    return write
