"""Where the time of a training step goes: each part measured as it runs, captured where the step would be.

What cannot be run alone is a difference: LPIPS is what a step with it takes more, the backward pass what is left of a
step without it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch

from s2vc_model.network import S2vcNetwork
from s2vc_model.train.average import Average
from s2vc_model.train.companions import Companions
from s2vc_model.train.data import Bank
from s2vc_model.train.finish import learning_alone
from s2vc_model.train.losses import Perceptual
from s2vc_model.train.recipe import Stage, Weights
from s2vc_model.train.step import EAGER_STEPS, ChunkStep, Dials, Optimiser


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Milliseconds of one step of a stage.

    Attributes:
        parts: by part; they add up to the step.
        crops: what LPIPS takes on crops of these sides.
        pixels: that a step trains on.
        gigabytes: most GPU memory held.
    """

    stage: str
    parts: dict[str, float]
    crops: dict[int, float]
    pixels: int
    gigabytes: float

    def __str__(self) -> str:
        whole = sum(self.parts.values())
        speed = self.pixels / whole / 1e3
        lines = [f"{self.stage}: {whole:.2f} ms a step, {speed:.1f} Mpixel/s, {self.gigabytes:.1f} GB"]
        lines += [f"  {name:20} {ms:9.2f} ms {100 * ms / whole:5.1f} %" for name, ms in self.parts.items()]
        lines += [f"  LPIPS on crops of {side:3}: {ms:.2f} ms" for side, ms in self.crops.items()]
        return "\n".join(lines)


def profile_stage(
    stage: Stage,
    network: S2vcNetwork,
    bank: Bank,
    perceptual: Perceptual,
    companions: Companions | None = None,
    repeats: int = 20,
) -> StepProfile:
    """Time a stage's main step; trains ``network`` by some steps on the way.

    A teacher's time is in the part called backward.
    """
    device = bank.device
    cuda = device.type == "cuda"
    side = torch.cuda.stream(torch.cuda.Stream()) if cuda else contextlib.nullcontext()
    with side, learning_alone(network, stage):
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        dials = Dials(device, 1e-5)
        dials.rate.fill_(1.0)
        opt, average = Optimiser(network, dials), Average(network)

        def timed(do: Callable[[], object]) -> float:
            return _median_ms(do, device, repeats)

        def step_of(shape: Stage, lpips: bool) -> tuple[ChunkStep, float]:
            step = ChunkStep(shape, Weights(), network, opt, perceptual, companions)
            step.load(batch, 0)
            step(True, lpips)
            first = shape.chunks == 1
            for _ in range(EAGER_STEPS + 1):
                step(first, lpips)
            return step, timed(lambda: step(first, lpips))

        draw = timed(lambda: bank.draw(stage.batch, stage.frames * stage.chunks, stage.size)) / stage.chunks
        batch = bank.draw(stage.batch, stage.frames * stage.chunks, stage.size)
        step, plain = step_of(stage, False)
        load = timed(lambda: step.load(batch, 0))
        optimiser = timed(_captured(opt.adam.step, device))
        forward = timed(_captured(_without_gradient(step, lambda: step.forward(stage.chunks == 1)), device))
        buffers = step.forward(stage.chunks == 1)[3]
        before = None if stage.frames == 1 else buffers.diffusion
        generate = _without_gradient(step, lambda: network.generator(buffers.buffer, before))
        generator = stage.frames * timed(_captured(generate, device))
        lpips = max(0.0, step_of(stage, True)[1] - plain) / stage.perceptual_every
        crops = {
            crop: max(0.0, step_of(replace(stage, perceptual_crop=crop), True)[1] - plain)
            for crop in (stage.size, stage.size // 2)
        }
        parts = {
            "drawing": draw + load,
            "codec, forward": forward - generator,
            "generator, forward": generator,
            "LPIPS": lpips,
            "backward": plain - forward - optimiser,
            "optimiser": optimiser,
            "moving average": timed(average.update),
        }
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    return StepProfile(stage.name, parts, crops, stage.batch * stage.frames * stage.size**2, memory)


def _without_gradient(step: ChunkStep, do: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad(), step.autocast():
            do()

    return run


def _captured(do: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """``do`` as one CUDA graph, or as it is."""
    if device.type != "cuda":
        return do
    for _ in range(EAGER_STEPS):
        do()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        do()
    replay: Callable[[], object] = graph.replay
    return replay


def _median_ms(do: Callable[[], object], device: torch.device, repeats: int) -> float:
    spans = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        do()
        if device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        spans.append(1e3 * (time.perf_counter() - began))
    return median(spans[1:])
