"""The codec's errors.

    ModelError
    ├── WeightsError     weights missing, damaged, of another model, or failing their overflow proof
    ├── BitstreamError   a payload that is not a whole, plausible coded GOP
    ├── SymbolMismatch   symbols decoded, but not those the encoder wrote
    └── TrainingError    training lacks what it needs: clips, another process, or a teacher
"""


class ModelError(Exception):
    """Base of everything the codec raises on purpose."""


class WeightsError(ModelError):
    """Weights are missing, damaged, of another model, or fail their overflow proof."""


class BitstreamError(ModelError):
    """A payload is not a whole, plausible coded GOP."""


class SymbolMismatch(ModelError):
    """Decoded symbols differ from those the encoder wrote."""


class TrainingError(ModelError):
    """Training lacks what it needs: clips long and large enough, the other processes, or a teacher."""
