"""LeRobot plug-in: what `--robot.discover_packages_path=robot.lerobot_sim` imports. LeRobot looks for the robot's class
in the package above its configuration's module, so both are named here."""

from robot.lerobot_sim.sim import ReafferenceSim, ReafferenceSimConfig

__all__ = ["ReafferenceSim", "ReafferenceSimConfig"]
