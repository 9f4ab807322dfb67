"""SAM 2 as a stream: one frame in, masks out, in memory that does not grow; and automatic masks on the same backbone.

In: RGB frames and prompts. Out: logits and masks as tensors. Called by actors/tracker. Knows nothing of Ray, of
messages or of where weights come from.

Reading order: build (networks and their weights), memory (what is kept of past frames), stream (frame by frame).
"""
