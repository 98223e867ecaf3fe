"""What is trained, in which order, with which weights: plain values. The reasons stand beside the numbers.

Batches are those of one process; several ranks draw as much each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LAMBDA_LOW, LAMBDA_HIGH = 80.0, 0.5
"""Rate weight per bit-per-pixel at quality 0 and at quality 63, log-spaced between."""
INTRA_SIZE = 128
"""Side of the pictures of intra-only steps inside other stages."""


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
    perceptual_share: float = 0.5
    """Share of the batch whose pictures LPIPS sees, one random frame of each."""
    perceptual_crop: int = 0
    """Side of the random tile of them that it sees, at one place for all; 0: all of each. Sides divide ``size``, so
    every pixel is seen as often as any other and weighs the same over steps. More edges are seen, which LPIPS reads
    as black beyond: tiles of 64 have 0.87 to 0.96 of the distance of 128 (photos; shipped weights, and noise)."""
    perceptual_every: int = 1
    """One random step in so many has it, with so many times the weight. Where gradients are clipped, as they mostly
    are, that weight is not all felt: crops are the better way to save."""
    semantic: float = 0.0
    """Weight of telling, in the tokens of a chunk's last frame, what the semantic teacher sees. It must be installed:
    see `s2vc_model.train.teacher`."""
    adversarial: float = 0.0
    """Weight of deceiving a judge of pairs of frames that learns beside; see `s2vc_model.train.adversary`."""
    coded: bool = True
    """Whether latents pass the priors; without, nothing is rounded, no rate is paid and only first frames exist."""
    copy_intra: bool = False
    """Start the inter path as a copy of the intra path."""
    motion_weight: float = 0.02
    """Weight of following the searched motion, decaying over the first 3000 steps to a tenth."""
    generator_only: bool = False
    """Only the generator learns, on what a decoder would give it; see `s2vc_model.train.finish`."""
    analysis_only: bool = False
    """Only the analysis of first pictures learns, through decoders as they are."""
    l1: float = 1.0
    """Weight of the L1 term at quality 63, relative to the recipe's."""
    l1_low: float = 1.0
    """What of that weight is left at quality 0, geometric between: where bits are few, hardly a pixel can be right."""
    alex: float = 0.0
    """Weight of LPIPS-alex of all pictures, beside LPIPS-VGG of some."""
    rare_below: int = 0
    """Qualities below this one are drawn a quarter as often as evenly."""
    enlarged: float = 0.0
    """Share of steps on pictures of 240 lines and more enlarged 1.5 times, as small pictures are before they are
    coded."""

    def intra_shape(self) -> Stage:
        """The intra-only steps inside this stage."""
        crop = min(self.perceptual_crop, INTRA_SIZE)
        return replace(
            self, name="intra-share", frames=1, chunks=1, size=INTRA_SIZE, batch=self.intra_batch, perceptual_crop=crop
        )

    def __post_init__(self) -> None:
        crops = self.perceptual_crop >= 0 and self.size % (self.perceptual_crop or self.size) == 0
        shares = 0 < self.perceptual_share <= 1
        if not crops or not shares or self.perceptual_every < 1:
            raise ValueError(
                f"{self.name}: perceptual_crop must divide {self.size}, perceptual_share above 0 and at most 1, "
                f"perceptual_every at least 1"
            )
        if not self.l1_low > 0:
            raise ValueError(f"{self.name}: l1_low is a share above 0, not {self.l1_low}")
        if self.size % 64:
            raise ValueError(f"{self.name}: size must be a multiple of 64, got {self.size}")
        if not self.coded and (self.frames, self.chunks, self.intra_share) != (1, 1, 0):
            raise ValueError(f"{self.name}: what is not coded is one frame and one chunk")
        if self.adversarial and self.frames < 2:
            raise ValueError(f"{self.name}: the adversary judges pairs, so adversarial goes with frames of 2 and more")
        if self.alone and (not self.coded or self.intra_share or self.semantic):
            raise ValueError(
                f"{self.name}: generator_only and analysis_only go with coded frames, no intra_share and no semantic"
            )
        if self.analysis_only and (self.generator_only or (self.frames, self.chunks) != (1, 1)):
            raise ValueError(f"{self.name}: analysis_only learns of one frame and one chunk, and alone")

    @property
    def alone(self) -> bool:
        """Whether one part learns and the rest is frozen."""
        return self.generator_only or self.analysis_only


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
    # The generator alone, cheap enough for one CPU core. No stream changes by it, so it may come at any time after.
    "finish": Stage(
        "finish", 100000, 2, 8, 128, 2, lr=1e-4, warmup=100, perceptual_share=1.0, generator_only=True, l1=0.4,
        rare_below=20, enlarged=0.5,
    ),
    # The first pictures' encoder alone, for the decoders there are; old streams stay readable.
    "analysis": Stage(
        "analysis", 100000, 1, 1, 128, 4, lr=1e-4, warmup=100, perceptual_share=1.0, analysis_only=True,
        rare_below=20, enlarged=0.5,
    ),
}
