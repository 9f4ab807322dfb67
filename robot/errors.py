"""What can go wrong around an arm, by name. Raised everywhere in robot/, caught by the loop and the command line.

Every class takes one string, so that it survives pickling, and the string is one sentence for a person.
"""

from __future__ import annotations

from pydantic import ValidationError


def complaint(error: Exception) -> str:
    """What a reader of YAML or JSON found wrong, on one line: every field with its reason, or the parser's place."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors())
    return " ".join(str(error).split())


class RobotError(Exception):
    """Base of everything below; the command line prints the sentence and exits with 2."""


class ContractError(RobotError):
    """Policy, camera and robot do not fit together; torque was never switched on."""


class CalibrationError(RobotError):
    """The calibration file is missing, of another arm, or not what the motors hold."""


class ConnectionFailed(RobotError):
    """The arm or its camera does not answer: port busy, no power, wrong motor count."""


class ObservationError(RobotError):
    """This tick has no usable observation (bus error, NaN joint, black or missing frame); the loop holds."""


class CommandError(RobotError):
    """A command did not reach the motors; the loop holds and counts it."""


class PolicyError(RobotError):
    """The policy failed, answered nonsense, or its server went away; the loop holds."""


class TrackingError(RobotError):
    """The tracking service gave no answer to this frame: late, away, or it refused; the next frame may have one."""


class RenderingUnavailable(RobotError):
    """No OpenGL platform for the simulator; the sentence says what to install."""


class RecordingError(RobotError):
    """The episode cannot be recorded: its folder is in use or cannot be made."""


class RecordingLost(RecordingError):
    """The run took place and the arm is at rest, but its episode is not, or not wholly, on the disk."""
