"""Train ``small``: one stage or all, within a time budget, from scratch or from a checkpoint.

    python -m jobs.train --data clips/ photos/ --stages intra,pairs,streams --budget-minutes 25 --out runs/a
    python -m jobs.train --data clips/ --init runs/a/checkpoint.safetensors --stages streams --out runs/b
    python -m jobs.train --init runs/b/checkpoint.safetensors --export weights/mine

Several GPUs of a node, each with a copy of the network and crops of its own; every batch counts once per GPU:

    torchrun --nproc-per-node 8 -m jobs.train --init weights/sd15 --data clips/ --out runs/sd15 \\
        --set intra.batch=8 pairs.batch=4 pairs.intra_batch=8 streams.batch=2 streams.intra_batch=8
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
from s2vc_model.errors import TrainingError
from s2vc_model.network import S2vcNetwork
from s2vc_model.train.checkpoint import checkpoint_note, load_checkpoint, save_checkpoint
from s2vc_model.train.data import CLIPS, PHOTOS, Bank, BankConfig
from s2vc_model.train.keeper import Ending, Keeper
from s2vc_model.train.loop import RunConfig, Trainer, json_lines
from s2vc_model.train.ranks import Ranks, join, leave
from s2vc_model.train.recipe import RECIPE, Stage
from s2vc_model.weight_files import load_weights, save_weights


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", nargs="+", type=Path, default=[], help="folders of clips and photos to train on")
    p.add_argument("--out", type=Path, help="folder for checkpoint.safetensors and log.jsonl")
    p.add_argument(
        "--init", type=Path, help="checkpoint or weights folder to go on from; default: fresh weights"
    )
    p.add_argument(
        "--export", type=Path, help="write the exact, loadable weights into this folder at the end"
    )
    p.add_argument("--stages", default="intra,pairs,streams", help=f"comma-separated, of {', '.join(RECIPE)}")
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
    p.add_argument("--max-frames", type=int, default=120, help="frames kept of each clip")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--log-every", type=int, default=100)
    p.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, or cuda: under torchrun each process takes the GPU of its local rank",
    )
    args = p.parse_args(argv)
    if args.data and not args.out:
        p.error("--data needs --out, where the checkpoint and the log go")
    if not args.data and not (args.init and args.export):
        p.error(
            "nothing to do: give --data to train on, or --init and --export to turn a checkpoint into weights"
        )
    return args


def starting_network(init: Path | None) -> tuple[S2vcNetwork, int]:
    """A trainable network on the CPU: fresh, from a checkpoint, or from a weights folder; and its steps so far."""
    if init is None:
        return S2vcNetwork(PRESETS["small"]), 0
    if init.is_file():
        return load_checkpoint(init), int(checkpoint_note(init).get("steps", 0))
    loaded = load_weights(init)
    loaded.network.thaw()
    return loaded.network, int(loaded.notes.get("steps", 0))


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
        stages[name] = dataclasses.replace(stages[name], **{key: value})
    return list(stages.values())


def main(argv: list[str] | None = None) -> int:
    """Entry point, of every rank; returns the exit code."""
    args = parse(argv)
    try:
        ranks, device = join(args.device)
        torch.manual_seed(args.seed)
        network, steps = starting_network(args.init)
        note = {"from": args.init.name} if args.init else {}
        ending = Ending()
        if args.data:
            with ending.on_signals():
                note = train(network, args, steps, ranks, device, ending)
        leave()
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    if ending.signal:
        return 128 + ending.signal
    if args.export and ranks.first:
        print(f"{args.export}: sha256 {save_weights(args.export, network.cpu(), note)}")
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
    if ranks.first:
        args.out.mkdir(parents=True, exist_ok=True)
    files = [f for d in args.data for f in d.rglob("*") if f.suffix.lower() in CLIPS | PHOTOS]
    bank = Bank(files, device, BankConfig(max_frames=args.max_frames))
    _say(ranks, f"{len(bank)} sources, {bank.buffer.numel() / 1e9:.2f} GB, {time.monotonic() - began:.0f} s")
    for reason in bank.skipped:
        _say(ranks, f"left out: {reason}")
    ranks.spread(network)
    network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    note: dict[str, object] = {
        "stages": args.stages, "set": args.set, "budget_minutes": args.budget_minutes, "seed": args.seed,
        "ranks": ranks.size,
    }  # fmt: skip

    def write(averaged: dict[str, Tensor], taken: int, complete: bool) -> None:
        note.update(steps=steps + taken, complete=complete)
        save_checkpoint(args.out / "checkpoint.safetensors", network.config, averaged, note)

    size = 2 * sum(p.numel() for p in network.parameters())
    keeper = Keeper(write, args.checkpoint_minutes * 60, size) if ranks.first else None
    left = ranks.from_first(args.budget_minutes * 60 - (time.monotonic() - began))
    config = RunConfig(left, args.anneal_steps, args.seed, steps, args.log_every)
    log = json_lines(args.out / "log.jsonl") if ranks.first else _quiet
    trainer = Trainer(network, bank, config, log, ranks, keeper, ending)
    network.load_state_dict(trainer.run(stages), strict=False)
    if ending.signal:
        _say(ranks, f"ended by {ending.signal.name}")
    peak = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GB" if device.type == "cuda" else ""
    _say(ranks, f"{trainer.step} steps in {trainer.elapsed():.0f} s{peak}")
    return note


def _say(ranks: Ranks, text: str) -> None:
    if ranks.first:
        print(text, flush=True)


def _quiet(entry: dict[str, object]) -> None:
    """The log of the other ranks."""


if __name__ == "__main__":
    sys.exit(main())
