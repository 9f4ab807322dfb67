"""Robot kinematics as batched torch functions: Universal Robots arms in closed form, hands from URDF files."""
