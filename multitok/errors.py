"""Every error this package raises on purpose.

    MultitokError
    ├── SpecError             (ValueError)     a specification or a configuration value that cannot be
    ├── ShapeError            (ValueError)     an array of the wrong rank, shape or dtype
    ├── CodeRangeError        (ValueError)     a code outside its codebook, an ID outside its vocabulary
    ├── InputError            (ValueError)     a raw input that cannot be tokenized (NaN, empty, too large)
    │   └── MediaError                         a file whose bytes cannot be read as what it claims to be
    ├── RegistryError         (LookupError)    an unknown or a doubly registered kind
    ├── MissingExtraError     (ImportError)    an optional dependency is absent; names the extra
    ├── CheckpointError       (ValueError)     a checkpoint folder that cannot be trusted or read
    ├── VocabularyError       (ValueError)     a vocabulary that cannot be built, read or extended
    │   └── FingerprintError                   two sides that must agree on a fingerprint do not
    ├── PatternError          (ValueError)     a flatten pattern that does not fit its grid or its stream
    ├── ShardError            (ValueError)     a shard or manifest that is cut short, altered or foreign
    ├── JobError              (RuntimeError)   a job that cannot start or may not go on
    └── LoaderError           (RuntimeError)   a loader state that does not belong to its data

Each error is also the builtin that a caller would expect to catch. Messages say what was given, what is
allowed and what to do. Errors carry nothing but their message, so they cross process boundaries unchanged.
"""

from __future__ import annotations


class MultitokError(Exception):
    """Base of every error this package raises on purpose."""


class SpecError(MultitokError, ValueError):
    """A tokenizer specification or configuration value that cannot be."""


class ShapeError(MultitokError, ValueError):
    """An array of the wrong rank, shape or dtype."""


class CodeRangeError(MultitokError, ValueError):
    """A code outside its codebook, or a token ID outside its vocabulary."""


class InputError(MultitokError, ValueError):
    """A raw input that cannot be tokenized."""


class MediaError(InputError):
    """A file whose bytes cannot be read as what it claims to be."""


class RegistryError(MultitokError, LookupError):
    """An unknown kind, or a kind registered twice."""


class MissingExtraError(MultitokError, ImportError):
    """An optional dependency is absent."""


class CheckpointError(MultitokError, ValueError):
    """A checkpoint folder that cannot be trusted or read."""


class VocabularyError(MultitokError, ValueError):
    """A vocabulary that cannot be built, read or extended."""


class FingerprintError(VocabularyError):
    """Two sides that must agree on a fingerprint do not."""


class PatternError(MultitokError, ValueError):
    """A flatten pattern that does not fit its grid or its stream."""


class ShardError(MultitokError, ValueError):
    """A shard or manifest that is cut short, altered or foreign."""


class JobError(MultitokError, RuntimeError):
    """A job that cannot start or may not go on."""


class LoaderError(MultitokError, RuntimeError):
    """A loader state that does not belong to its data."""
