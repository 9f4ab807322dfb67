"""Networks and their weights: tensors in, tensors out. No Ray, no files but weights.

Shape letters used in names: B batch, T time, N items, C channels, H height, W width, D features.
"""
