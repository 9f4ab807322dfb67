"""What can go wrong with weights and networks, by name. Raised in models/, shown to a person as one sentence.

Each takes a single string, so that it survives pickling on its way between processes.
"""

from __future__ import annotations


class ModelError(Exception):
    """Root of what models/ raises on purpose; the message says what, where and what would be right."""


class CatalogueInvalid(ModelError):
    """The weights catalogue itself does not hold what it should."""


class UnknownWeight(ModelError):
    """A name that the catalogue does not list."""


class MissingWeight(ModelError):
    """A listed weight is not in the cache, or not whole; the message carries the command that gets it."""


class WeightUnavailable(ModelError):
    """No source gave the file; the message lists why each of them failed."""


class CacheUnwritable(ModelError):
    """The cache folder cannot take the file: no permission, or no room."""


class SourceFailed(ModelError):
    """One source did not give the file; the next one is tried."""


class UnexpectedModel(ModelError):
    """A weight file loads, but its tensors are not the ones that its reader was written for."""


class UnknownRobot(ModelError):
    """A robot name that no table here lists."""


class RobotFileInvalid(ModelError):
    """A robot description does not hold what its reader needs; the message names file, joint and field."""


class WrongHand(ModelError):
    """A left hand was given to a right robot hand, or the other way round."""


class WrongInput(ModelError):
    """A network was given something other than it takes: size, shape, or something that is missing."""
