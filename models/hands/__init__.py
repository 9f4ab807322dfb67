"""MediaPipe Hands from its raw model files: palms, regions, landmarks, tracking. Arrays in, arrays out.

The order of work, one file each: palm.py finds palms (its anchors in anchors.py), regions.py turns a palm
or the last landmarks into a rotated square, landmarks.py reads 21 points inside it, tracker.py joins them
over a stream. Constants and order follow MediaPipe 0.10.21's `hand_landmark_tracking_cpu` graph
(google-ai-edge/mediapipe).
"""
