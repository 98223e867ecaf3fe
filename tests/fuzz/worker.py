"""A process that runs cases and prints each as a line of JSON: whatever crashes it is the case after the last line.

``python -m tests.fuzz.worker KIND FOLDER SEED FIRST STEP COUNT DEEP``: cases FIRST, FIRST + STEP, … below COUNT, of the
originals in FOLDER. DEEP: of every so many archives carried streams are written and symbols decoded, negative: without
symbols.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import av

from s2vc_ray.lanes import load_s2vc
from tests.fuzz.archive_case import ArchiveCases
from tests.fuzz.memory import forbid_more_than
from tests.fuzz.payload_case import PayloadCases
from tests.fuzz.source_case import SourceCases

_MOST = 2 << 30
"""Bytes of address space that a case may take before its allocations fail."""


def main() -> None:
    """See the module's docstring."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    seed, first, step, count, deep = map(int, sys.argv[3:])
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory(prefix="s2vc-fuzz-") as scratch:
        inner = Path(scratch, "inner")
        inner.mkdir()
        cases: ArchiveCases | SourceCases | PayloadCases
        if kind == "archives":
            codec = load_s2vc("small", "cpu") if deep > 0 else None
            originals = {path.name: path.read_bytes() for path in sorted(folder.glob("*.s2vc"))}
            cases = ArchiveCases(originals, inner, codec, abs(deep))
        elif kind == "payloads":
            cases = PayloadCases({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
        else:
            cases = SourceCases(sorted(folder.iterdir()), inner)
        print("ready", flush=True)
        forbid_more_than(_MOST)
        for number in range(first, count, step):
            begun = time.process_time()
            case = cases.run(number, seed)
            case.seconds = time.process_time() - begun
            print(json.dumps(asdict(case)), flush=True)


if __name__ == "__main__":
    main()
