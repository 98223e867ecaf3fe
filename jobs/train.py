"""Train ``small``: one stage or all, within a time budget, from scratch or from a checkpoint.

    python -m jobs.train --data clips/ photos/ --stages intra,pairs,streams --budget-minutes 25 --out runs/a
    python -m jobs.train --data clips/ --init runs/a/checkpoint.safetensors --stages streams --out runs/b
    python -m jobs.train --init runs/b/checkpoint.safetensors --export weights/mine
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import torch

from s2vc_model.config import PRESETS
from s2vc_model.network import S2vcNetwork
from s2vc_model.train.checkpoint import load_checkpoint, save_checkpoint
from s2vc_model.train.data import CLIPS, PHOTOS, Bank, BankConfig
from s2vc_model.train.loop import RunConfig, Trainer, json_lines
from s2vc_model.train.recipe import RECIPE, Stage
from s2vc_model.weight_files import load_weights, save_weights


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", nargs="+", type=Path, default=[], help="folders of clips and photos to train on")
    p.add_argument("--out", type=Path, help="folder for checkpoint.safetensors and log.jsonl")
    p.add_argument("--init", type=Path, help="checkpoint or weights folder to go on from; default: fresh weights")
    p.add_argument("--export", type=Path, help="write the exact, loadable weights into this folder at the end")
    p.add_argument("--stages", default="intra,pairs,streams", help=f"comma-separated, of {', '.join(RECIPE)}")
    p.add_argument("--set", nargs="*", default=[], metavar="STAGE.FIELD=VALUE", help="override recipe fields")
    p.add_argument("--budget-minutes", type=float, default=25.0, help="wall time after which training stops cleanly")
    p.add_argument("--anneal-steps", type=int, default=0, help="last steps of the run, with the rate falling to zero")
    p.add_argument("--max-frames", type=int, default=120, help="frames kept of each clip")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--log-every", type=int, default=100)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = p.parse_args(argv)
    if args.data and not args.out:
        p.error("--data needs --out, where the checkpoint and the log go")
    if not args.data and not (args.init and args.export):
        p.error("nothing to do: give --data to train on, or --init and --export to turn a checkpoint into weights")
    return args


def starting_network(init: Path | None) -> S2vcNetwork:
    """A trainable network on the CPU: fresh, from a checkpoint, or from a weights folder."""
    if init is None:
        return S2vcNetwork(PRESETS["small"])
    if init.is_file():
        return load_checkpoint(init)
    network = load_weights(init).network
    network.thaw()
    return network


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
    """Entry point; returns the exit code."""
    args = parse(argv)
    torch.manual_seed(args.seed)
    network = starting_network(args.init)
    note = {"stages": args.stages, "set": args.set, "budget_minutes": args.budget_minutes, "seed": args.seed}
    if args.data:
        train(network, args, note)
    if args.export:
        digest = save_weights(args.export, network.cpu(), note if args.data else {"from": str(args.init.name)})
        print(f"{args.export}: sha256 {digest}")
    return 0


def train(network: S2vcNetwork, args: argparse.Namespace, note: dict[str, object]) -> None:
    """Run the stages; leaves the averaged weights in ``network`` and in ``--out``."""
    stages = chosen_stages(args.stages, args.set)
    began = time.monotonic()
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = False
    args.out.mkdir(parents=True, exist_ok=True)
    files = [f for d in args.data for f in d.rglob("*") if f.suffix.lower() in CLIPS | PHOTOS]
    bank = Bank(files, device, BankConfig(max_frames=args.max_frames))
    print(f"{len(bank)} sources, {bank.buffer.numel() / 1e9:.2f} GB, {time.monotonic() - began:.0f} s", flush=True)
    for reason in bank.skipped:
        print("left out:", reason, flush=True)
    network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    config = RunConfig(args.budget_minutes * 60, args.anneal_steps, args.seed, args.log_every)
    trainer = Trainer(network, bank, config, json_lines(args.out / "log.jsonl"))
    averaged = trainer.run(stages)
    network.load_state_dict(averaged, strict=False)
    save_checkpoint(args.out / "checkpoint.safetensors", network.config, averaged, note)
    peak = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GB" if device.type == "cuda" else ""
    print(f"{trainer.step} steps in {trainer.elapsed():.0f} s{peak}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
