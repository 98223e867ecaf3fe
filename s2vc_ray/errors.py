"""The job's errors. Each message says what was wrong, where, and what to do.

S2vcError
├── ConfigError         an option or environment the job cannot run with
├── SourceError         a source that cannot be read as video
├── ArchiveError        bytes that are not a usable .s2vc archive
│   ├── NotAnArchive
│   ├── UnsupportedVersion
│   ├── CorruptArchive      checksum or structure damaged
│   │   └── TruncatedArchive
│   └── WrongWeights        coded by another model than the one given
├── LargerThanSource    an archive that would take more bytes than its source
├── DeviceLost          a GPU that its process has lost (`device_faults.py`)
├── TaskDied            planning or committing that ended its process every time it was tried
└── StorageError        a store that refused or failed
    ├── StoreUnavailable    out of reach for longer than it was waited for
    ├── ObjectMissing
    └── ObjectExists
"""


class S2vcError(Exception):
    """Base of everything the job raises on purpose."""


class ConfigError(S2vcError):
    """An option or environment the job cannot run with."""


class SourceError(S2vcError):
    """A source that cannot be read as video."""


class ArchiveError(S2vcError):
    """Bytes that are not a usable archive."""


class NotAnArchive(ArchiveError):
    """The magic is missing."""


class UnsupportedVersion(ArchiveError):
    """Written by a format version this reader does not know."""


class CorruptArchive(ArchiveError):
    """A checksum or length inside the archive is wrong."""


class TruncatedArchive(CorruptArchive):
    """The archive ends before its trailer."""


class WrongWeights(ArchiveError):
    """The archive was coded by another model than the one given."""


class LargerThanSource(S2vcError):
    """An archive that would take more bytes than its source, and was not published."""


class TaskDied(S2vcError):
    """Planning or committing that ended its process every time it was tried."""


class StorageError(S2vcError):
    """A store refused or failed."""


class StoreUnavailable(StorageError):
    """The store could not be reached, or kept failing, for as long as `Patience` allows."""


class ObjectMissing(StorageError):
    """No object under that key."""


class ObjectExists(StorageError):
    """An object is already there and was not to be overwritten."""
