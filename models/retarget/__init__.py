"""Human hands to robot joints: 21 keypoints and a wrist pose → an Allegro hand's 16 angles and a UR arm's 6."""
