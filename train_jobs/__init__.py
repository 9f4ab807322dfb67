"""Training jobs: `python -m train_jobs.<job>`."""
