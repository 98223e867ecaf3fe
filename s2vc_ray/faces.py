"""Where faces are in pictures, for `s2vc_ray.risk`: OpenCV's Haar cascade of frontal faces (Viola and Jones, 2001).

An old detector: quick, small, shipped inside its wheel, good at faces that look at the camera and blind to profiles. It
is asked where to look closer, not who is there. Needs the extra ``guards``; OpenCV is imported on first use.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2vc_ray.errors import ConfigError
from s2vc_ray.risk import Box

_SIDE = 480
"""Pictures are made as small as this along the shorter side: faces below a twentieth of it are not found anyway."""
_LEAST = 24
_SCALE = 1.15
_NEIGHBOURS = 5
"""How many detections must agree: of 25 photos without a face, one had a face found in it."""


class FaceFinder:
    """Finds faces. Safe to call from several threads, one of which it serves at a time.

    Raises:
        ConfigError: OpenCV is not installed, or ships no cascade.
    """

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise ConfigError(f"--faces needs OpenCV ({error}): pip install 's2vc-ray[guards]'") from error
        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
        if not path.is_file():
            raise ConfigError(
                f"--faces needs a cascade that OpenCV {cv2.__version__} does not ship: pip install 's2vc-ray[guards]'"
            )
        self._cv2 = cv2
        self._cascade = cv2.CascadeClassifier(str(path))
        self._lock = threading.Lock()

    def find(self, frames: npt.NDArray[np.uint8]) -> list[tuple[Box, ...]]:
        """Boxes of the faces in each frame of (T, H, W, 3) uint8 RGB."""
        with self._lock:
            return [self._of(frame) for frame in frames]

    def _of(self, frame: npt.NDArray[np.uint8]) -> tuple[Box, ...]:
        height, width, _ = frame.shape
        smaller = max(1.0, min(height, width) / _SIDE)
        size = max(1, round(width / smaller)), max(1, round(height / smaller))
        grey = self._cv2.cvtColor(np.ascontiguousarray(frame), self._cv2.COLOR_RGB2GRAY)
        small = self._cv2.resize(grey, size, interpolation=self._cv2.INTER_AREA)
        found = self._cascade.detectMultiScale(
            small, scaleFactor=_SCALE, minNeighbors=_NEIGHBOURS, minSize=(_LEAST, _LEAST)
        )
        boxes = [[float(edge) * smaller for edge in one] for one in found]
        return tuple(
            (round(x), round(y), min(round(x + w), width), min(round(y + h), height)) for x, y, w, h in boxes
        )
