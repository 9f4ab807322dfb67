"""From video of hands to robot commands: `python -m train_jobs.manipulation`."""
