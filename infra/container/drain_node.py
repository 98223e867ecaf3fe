"""Take this Ray node out of service before its machine is taken away, as a preStop hook or on a spot notice.

Asks Ray to place nothing more on the node, then waits for what runs here to end: a drained raylet leaves by
itself once it is idle. What is not done by then is lost with the machine, and Ray, having been told, takes
that for a preemption and no failure. Knows nothing of the job; needs only Ray's command line and psutil.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import psutil

_ASK_SECONDS = 30.0
_LOOK_SECONDS = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Drain this node; 0 when its raylet has left, 1 when it could not be drained or was still busy."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=90, help="how long running work may take to end")
    parser.add_argument("--message", default="the machine is being taken away", help="reason, for Ray's logs")
    parser.add_argument("--node-id", help="which raylet, where one machine has several")
    options = parser.parse_args(arguments)
    return drain(options.seconds, options.message, options.node_id)


def drain(seconds: int, message: str, node_id: str | None = None) -> int:
    """As `main`."""
    deadline = time.monotonic() + seconds
    raylets = _raylets(node_id)
    if len(raylets) != 1:
        return _fail(f"{len(raylets)} raylets run here" + (f" as node {node_id}" if node_id else ""))
    (raylet,) = raylets
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", message]
    command += ["--node-id", _option(raylet, "node_id"), "--address", _option(raylet, "gcs-address")]
    command += ["--deadline-remaining-seconds", str(seconds)]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _fail(f"cannot ask Ray to drain this node: {error}")
    if asked.returncode:
        said = (asked.stderr or asked.stdout).strip().splitlines() or ["no message"]
        return _fail(f"Ray does not drain this node: {said[-1]}")
    while _is_there(raylet):
        if time.monotonic() > deadline:
            return _fail(f"still busy after {seconds} s; its work will be done elsewhere")
        time.sleep(_LOOK_SECONDS)
    return 0


def _raylets(node_id: str | None) -> list[psutil.Process]:
    found = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "raylet"]
    return [process for process in found if node_id in (None, _option(process, "node_id"))]


def _is_there(raylet: psutil.Process) -> bool:
    try:
        # One that ended stays in the process table until its parent asks for it.
        return bool(raylet.is_running() and raylet.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _option(raylet: psutil.Process, name: str) -> str:
    """The value of one of the options that Ray started the raylet with; empty when it has gone."""
    try:
        arguments = raylet.cmdline()
    except psutil.Error:
        return ""
    values = (text.partition("=")[2] for text in arguments if text.startswith(f"--{name}="))
    return next(values, "")


def _fail(text: str) -> int:
    print(f"drain_node: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
