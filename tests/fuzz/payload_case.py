"""One forged payload of the fallback codec, through the parser and FFmpeg's decoder."""

from __future__ import annotations

import random
from dataclasses import dataclass

from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.fallback import check_av1
from tests.fuzz.case import Case
from tests.fuzz.forge_av1 import forged_av1
from tests.fuzz.memory import resident_peak

_SLACK = 64 << 20
"""What FFmpeg keeps or takes anew by itself."""


@dataclass
class PayloadCases:
    """Makes and judges cases of ``originals``, whole payloads by name."""

    originals: dict[str, bytes]

    def run(self, number: int, seed: int) -> Case:
        """The case of this number."""
        rng = random.Random(f"payload {seed} {number}")
        name = rng.choice(sorted(self.originals))
        payload = forged_av1(self.originals[name], rng)
        case = Case(number, "forged", name)
        with resident_peak() as peak:
            gop = case.step("parser", lambda: Av1Gop.from_payload(payload))
            if gop is not None:
                case.step("planes", lambda: check_av1(gop))
        if peak.bytes > _SLACK:
            case.violations.append(f"{peak.bytes >> 20} MiB resident for {len(payload)} bytes")
        return case
