"""What a cut-out object looks like, as vectors that can be compared with a cosine.

In: RGB pictures with masks. Out: one descriptor per object, and one per patch of it. Called by actors/tracker. Knows
nothing of templates or thresholds.

Reading order: crops (from a mask to a square, the same for templates and proposals), colours (which an object has),
networks (DINOv2 and the embedded MobileNetV2), embedder (all of it behind one class, in chunks).
"""
