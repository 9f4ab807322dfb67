"""nuScenes tables → six-camera tracking sequences, tracks and scores: `python -m data_jobs.nuscenes`."""
