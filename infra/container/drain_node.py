"""Take this Ray node out of service before its machine is taken away, as a preStop hook or on a spot notice.

Asks Ray to place nothing more on the node, then waits for what runs here to end: a drained raylet leaves by
itself once it is idle. What is not done by then is lost with the machine and coded again elsewhere, which
costs time and nothing else. Knows nothing of the job; needs only Ray's command line and psutil.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

_ASK_SECONDS = 30.0


def main(arguments: list[str] | None = None) -> int:
    """Drain this node; 0 when its raylet is gone, 1 when it could not be drained or was still busy."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=90, help="how long running work may take to end")
    parser.add_argument("--message", default="the machine is being taken away", help="reason, for Ray's logs")
    parser.add_argument("--node-id", help="hex id; default: the node of this container or machine")
    parser.add_argument("--address", help="the cluster; default: the one that this machine is in")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.seconds
    raylets = list(_raylets(options.node_id))
    if not _drain(options):
        return 1
    _, busy = psutil.wait_procs(raylets, timeout=max(0.0, deadline - time.monotonic()))
    if busy:
        print(
            f"drain_node: still busy after {options.seconds} s; its work will be done elsewhere",
            file=sys.stderr,
        )
    return 1 if busy else 0


def _drain(options: argparse.Namespace) -> bool:
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", options.message, "--deadline-remaining-seconds", str(options.seconds)]
    for flag, value in (("--node-id", options.node_id), ("--address", options.address)):
        command += [flag, value] if value else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"drain_node: cannot ask Ray to drain this node: {error}", file=sys.stderr)
        return False
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        print(f"drain_node: Ray did not drain this node: {reason[-1]}", file=sys.stderr)
    return done.returncode == 0


def _raylets(node_id: str | None) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["name", "cmdline"]):
        arguments = process.info["cmdline"] or ()
        if process.info["name"] == "raylet" and (not node_id or f"--node_id={node_id}" in arguments):
            yield process


if __name__ == "__main__":
    raise SystemExit(main())
