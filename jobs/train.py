"""Train ``small``: one stage or all, within a time budget, from scratch or from a checkpoint.

    python -m jobs.train --data clips/ photos/ --stages intra,pairs,streams --budget-minutes 25 --out runs/a
    python -m jobs.train --data clips/ --init runs/a/checkpoint.safetensors --stages streams --out runs/b
    python -m jobs.train --init runs/b/checkpoint.safetensors --export weights/mine
    python -m jobs.train --init runs/b/checkpoint.safetensors --ceiling held-out/
    python -m jobs.train --init runs/b/checkpoint.safetensors --data clips/ --stages intra,streams --profile

Several GPUs of a node, each with a copy of the network and crops of its own; every batch counts once per GPU:

    torchrun --nproc-per-node 8 -m jobs.train --init weights/sd15 --data clips/ --out runs/sd15 \\
        --set autoencoder.batch=8 intra.batch=8 pairs.batch=4 pairs.intra_batch=8 streams.batch=2 streams.intra_batch=8
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2vc_model.config import PRESETS
from s2vc_model.errors import TrainingError, WeightsError
from s2vc_model.network import S2vcNetwork
from s2vc_model.succession import succeed
from s2vc_model.train.ablation import PARTS, ablate
from s2vc_model.train.ceiling import ceilings
from s2vc_model.train.checkpoint import (
    checkpoint_companions,
    checkpoint_note,
    load_checkpoint,
    save_checkpoint,
)
from s2vc_model.train.companions import Companions
from s2vc_model.train.cost import frame_cost
from s2vc_model.train.data import CLIPS, PHOTOS, Bank, BankConfig
from s2vc_model.train.keeper import Ending, Keeper
from s2vc_model.train.loop import RunConfig, Trainer, json_lines
from s2vc_model.train.losses import Perceptual
from s2vc_model.train.profile import profile_stage
from s2vc_model.train.ranks import Ranks, join, leave
from s2vc_model.train.recipe import RECIPE, Stage
from s2vc_model.train.widen import widen
from s2vc_model.weight_files import load_weights, save_weights

COST_SIZE = (512, 832)
"""Height and width of the frame whose cost is printed: 480p as it is padded."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", nargs="+", type=Path, default=[], help="folders of clips and photos to train on")
    p.add_argument(
        "--profile",
        action="store_true",
        help="instead of training, print where a step of each stage spends its time",
    )
    p.add_argument("--out", type=Path, help="folder for checkpoint.safetensors and log.jsonl")
    p.add_argument(
        "--init", type=Path, help="checkpoint or weights folder to go on from; default: fresh weights"
    )
    p.add_argument(
        "--preset",
        choices=[name for name, config in PRESETS.items() if config.generator == "small"],
        help="networks to train; with --init, what is trained is widened to it. Default: those of --init, else small",
    )
    p.add_argument(
        "--export", type=Path, help="write the exact, loadable weights into this folder at the end"
    )
    p.add_argument(
        "--reads",
        type=Path,
        metavar="DIR",
        help="with --export: weights whose archives the new ones can decode, as after finish and analysis; refused "
        "where a tensor that streams are bound to differs",
    )
    p.add_argument(
        "--ceiling",
        type=Path,
        metavar="FOLDER",
        help="instead of training, print what first frames of these clips look like at best: latents not rounded",
    )
    stages = ", ".join(RECIPE)
    p.add_argument(
        "--stages", default="autoencoder,intra,pairs,streams", help=f"comma-separated, of {stages}"
    )
    p.add_argument("--set", nargs="*", default=[], metavar="STAGE.FIELD=VALUE", help="override recipe fields")
    p.add_argument(
        "--budget-minutes",
        type=float,
        default=25.0,
        help="wall time from reading the data to the last checkpoint's last byte; --export comes on top",
    )
    p.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=2.0,
        help="write the checkpoint this often; SIGTERM and Ctrl-C write it too, and end the run",
    )
    p.add_argument(
        "--anneal-steps", type=int, default=0, help="last steps of the run, with the rate falling to zero"
    )
    p.add_argument(
        "--ablate",
        default="",
        metavar="PARTS",
        help=f"comma-separated, of {', '.join(PARTS)}: train, export or measure without these parts",
    )
    p.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="compute in bf16; default: on a GPU. On a CPU with AVX512-BF16 or AMX a step takes two thirds of the time",
    )
    p.add_argument("--max-frames", type=int, default=120, help="frames kept of each clip")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--log-every", type=int, default=100)
    p.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, or cuda: under torchrun each process takes the GPU of its local rank",
    )
    args = p.parse_args(argv)
    if args.data and not args.out and not args.profile:
        p.error("--data needs --out, where the checkpoint and the log go")
    if args.reads and not args.export:
        p.error("--reads is about the weights that --export writes: give both")
    if args.ceiling and (args.data or args.export):
        p.error("--ceiling measures and does nothing else: leave out --data and --export")
    if not args.data and not (args.init and (args.export or args.ceiling)):
        p.error(
            "nothing to do: give --data to train on, --init and --export to turn a checkpoint into weights, "
            "or --init and --ceiling to measure one"
        )
    return args


def starting_network(init: Path | None, preset: str | None = None) -> tuple[S2vcNetwork, int]:
    """A trainable network on the CPU: fresh, from a checkpoint, or from a weights folder; and its steps so far.

    Raises:
        WeightsError: ``init`` is no such thing, or cannot be widened to ``preset``.
    """
    if init is None:
        return S2vcNetwork(PRESETS[preset or "small"]), 0
    if init.is_file():
        network, steps = load_checkpoint(init), int(checkpoint_note(init).get("steps", 0))
    else:
        loaded = load_weights(init)
        network, steps = loaded.network, int(loaded.notes.get("steps", 0))
        network.thaw()
    if preset and PRESETS[preset] != network.config:
        network = widen(network, PRESETS[preset])
    return network, steps


def chosen_stages(names: str, overrides: list[str]) -> list[Stage]:
    """Stages of the recipe with ``stage.field=value`` overrides applied."""
    unknown = [name for name in names.split(",") if name not in RECIPE]
    if unknown:
        raise SystemExit(f"--stages {names}: no stage {unknown[0]!r}; there are {', '.join(RECIPE)}")
    stages = {name: RECIPE[name] for name in names.split(",")}
    for item in overrides:
        target, _, text = item.partition("=")
        name, _, key = target.partition(".")
        if name not in stages:
            raise SystemExit(f"--set {item}: stage {name!r} is not among {', '.join(stages)}")
        if key not in {f.name for f in dataclasses.fields(Stage)}:
            raise SystemExit(f"--set {item}: a stage has no field {key!r}")
        kind = type(getattr(stages[name], key))
        value: Any = tuple(float(v) for v in text.split(":")) if kind is tuple else kind(float(text))
        try:
            stages[name] = dataclasses.replace(stages[name], **{key: value})
        except ValueError as error:
            raise SystemExit(f"--set {item}: {error}") from error
    return list(stages.values())


def main(argv: list[str] | None = None) -> int:
    """Entry point, of every rank; returns the exit code."""
    args = parse(argv)
    try:
        ranks, device = join(args.device)
        torch.manual_seed(args.seed)
        network, steps = starting_network(args.init, args.preset)
        note = {"from": args.init.name} if args.init else {}
        if args.ablate:
            ablate(network, args.ablate.split(","))
        ending = Ending()
        if args.ceiling:
            show_ceilings(network.to(device).eval(), args.ceiling)
        if args.data:
            with ending.on_signals():
                note = train(network, args, steps, ranks, device, ending)
        leave()
    except (TrainingError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    if ending.signal:
        return 128 + ending.signal
    if args.export and ranks.first:
        print(f"{args.export}: sha256 {save_weights(args.export, network.cpu(), note)}")
        if args.reads:
            try:
                print(f"reads the streams of {', '.join(one[:12] for one in succeed(args.export, args.reads))}")
            except WeightsError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                return 1
    return 0


def train(
    network: S2vcNetwork,
    args: argparse.Namespace,
    steps: int,
    ranks: Ranks,
    device: torch.device,
    ending: Ending,
) -> dict[str, object]:
    """Run the stages; leaves the averaged weights in ``network`` and, by rank 0, in ``--out``.

    Returns:
        What the checkpoint says about itself.
    """
    stages = chosen_stages(args.stages, args.set)
    began = time.monotonic()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = False
    companions = Companions.for_stages(stages, network.config, device)
    if args.init and args.init.is_file():
        companions.go_on_from(checkpoint_companions(args.init))
    if ranks.first and args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    if network.config.generator == "small":
        for kind in ("intra", "inter"):
            cost = frame_cost(network.config, *COST_SIZE, inter=kind == "inter")
            _say(ranks, f"{kind} frame of {COST_SIZE[1]}x{COST_SIZE[0]}: {cost}")
    bank = Bank(sources(args.data), device, BankConfig(max_frames=args.max_frames))
    _say(ranks, f"{len(bank)} sources, {bank.buffer.numel() / 1e9:.2f} GB, {time.monotonic() - began:.0f} s")
    for reason in bank.skipped:
        _say(ranks, f"left out: {reason}")
    ranks.spread(network)
    network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if args.profile:
        perceptual = Perceptual(device)
        for stage in stages:
            print(profile_stage(stage, network, bank, perceptual, companions), flush=True)
        return {}
    note: dict[str, object] = {
        "stages": args.stages, "set": args.set, "budget_minutes": args.budget_minutes, "seed": args.seed,
        "ranks": ranks.size, **({"ablate": args.ablate} if args.ablate else {}),
    }  # fmt: skip

    def write(averaged: dict[str, Tensor], taken: int, complete: bool) -> None:
        note.update(steps=steps + taken, complete=complete)
        save_checkpoint(
            args.out / "checkpoint.safetensors", network.config, averaged, note, companions.learned()
        )

    size = 2 * sum(p.numel() for p in network.parameters())
    keeper = Keeper(write, args.checkpoint_minutes * 60, size) if ranks.first else None
    left = ranks.from_first(args.budget_minutes * 60 - (time.monotonic() - began))
    config = RunConfig(left, args.anneal_steps, args.seed, steps, args.log_every, args.bf16)
    log = json_lines(args.out / "log.jsonl") if ranks.first else _quiet
    trainer = Trainer(network, bank, config, log, ranks, keeper, ending, companions)
    network.load_state_dict(trainer.run(stages), strict=False)
    if ending.signal:
        _say(ranks, f"ended by {ending.signal.name}")
    peak = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GB" if device.type == "cuda" else ""
    _say(ranks, f"{trainer.step} steps in {trainer.elapsed():.0f} s{peak}")
    return note


def sources(folders: list[Path]) -> list[Path]:
    """All clips and photos below."""
    return [f for d in folders for f in d.rglob("*") if f.suffix.lower() in CLIPS | PHOTOS]


def show_ceilings(network: S2vcNetwork, folder: Path) -> None:
    """Print a line of `s2vc_model.train.ceiling` for each file, and the mean."""
    found = []
    print("first frame, LPIPS-alex / PSNR: not rounded, and at the highest quality")
    for c in ceilings(network, sources([folder])):
        found.append((*c.open, *c.coded))
        print(f"{c.name:32} {_scores(found[-1])}", flush=True)
    if found:
        print(
            f"{'mean':32} {_scores(tuple(sum(column) / len(found) for column in zip(*found, strict=True)))}"
        )


def _scores(row: tuple[float, ...]) -> str:
    return f"{row[0]:.3f} / {row[1]:.1f} dB   {row[2]:.3f} / {row[3]:.1f} dB"


def _say(ranks: Ranks, text: str) -> None:
    if ranks.first:
        print(text, flush=True)


def _quiet(entry: dict[str, object]) -> None:
    """The log of the other ranks."""


if __name__ == "__main__":
    sys.exit(main())
