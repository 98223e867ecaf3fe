"""What is trained, in which order, with which weights: plain values. The reasons stand beside the numbers.

Batches are those of one process; several ranks draw as much each.
"""

from __future__ import annotations

from dataclasses import dataclass

LAMBDA_LOW, LAMBDA_HIGH = 80.0, 0.5
"""Rate weight per bit-per-pixel at quality 0 and at quality 63, log-spaced between."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: shapes, steps and weights.

    A stream is ``chunks`` chunks of ``frames`` frames; gradients reach through one chunk, state through all of them.
    """

    name: str
    steps: int
    """Steps before the stage ends by itself; the budget may end it earlier."""
    frames: int
    chunks: int
    size: int
    batch: int
    intra_share: float = 0.0
    """Share of steps that train the intra path alone, so that it never drifts while inter frames train."""
    intra_batch: int = 64
    """Samples in each of these steps."""
    warmup: int = 200
    lr: float = 5e-4
    ramp: tuple[float, int, int] = (1.0, 0, 0)
    """Rate weight: start factor, hold until this step, then log-linear to 1 by this step."""
    perceptual_after: int = 0
    """Pure L1 until this step: a perceptual term on noise teaches nothing."""
    coded: bool = True
    """Whether latents pass the priors; without, nothing is rounded, no rate is paid and only first frames exist."""
    copy_intra: bool = False
    """Start the inter path as a copy of the intra path."""
    motion_weight: float = 0.02
    """Weight of following the searched motion, decaying over the first 3000 steps to a tenth."""

    def __post_init__(self) -> None:
        if self.size % 64:
            raise ValueError(f"{self.name}: size must be a multiple of 64, got {self.size}")
        if not self.coded and (self.frames, self.chunks, self.intra_share) != (1, 1, 0):
            raise ValueError(f"{self.name}: what is not coded is one frame and one chunk")


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the loss terms, per frame."""

    l1: float = 1.5
    perceptual: float = 1.0
    light: float = 0.5
    """L1 of the light picture, which the inter path moves and builds on."""
    moved: float = 0.2
    """L1 of the moved previous light picture: teaches the flow."""
    change: float = 0.3
    """L1 between frame differences: flicker."""
    outside: float = 0.1
    """Latents beyond what the priors' integers hold, where nothing is coded."""
    intra_rate: float = 0.5
    """The intra frame's rate counts less: its quality is inherited by the whole GOP."""


INTRA_SHAPE = Stage("intra-share", 0, 1, 1, 128, 64)
"""Shape of the intra-only steps inside other stages, but for their batch."""

RECIPE: dict[str, Stage] = {
    # What transforms and generator can show at best: no rate, nothing rounded. Every later stage stays below this.
    # Stop rule: the LPIPS of logged steps gains < 3 % per 1000 steps. If `--ceiling` then says more than 0.10
    # LPIPS-alex, widen the decoder before anything else is trained.
    "autoencoder": Stage(
        "autoencoder", 6000, 1, 1, 128, 64, coded=False, perceptual_after=300, motion_weight=0.0
    ),
    # Spend few bits on it. Stop rule: intra LPIPS at fixed bpp gains < 3 % per 1000 steps.
    # LPIPS from the first step, since the autoencoder's pictures are no noise.
    "intra": Stage("intra", 20000, 1, 1, 128, 64, ramp=(0.01, 300, 4000), motion_weight=0.0),
    # Teach the context and the flow on pairs, from the intra path's weights.
    "pairs": Stage(
        "pairs", 4000, 2, 2, 128, 32, intra_share=0.2, ramp=(0.3, 100, 1200), copy_intra=True
    ),
    # Streams: long exposure at short memory, so that errors of frame 24 are seen and corrected.
    "streams": Stage("streams", 100000, 3, 6, 256, 12, intra_share=0.25),
}
