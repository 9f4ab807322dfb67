"""Trains and judges the segmentation of the SO-101's wrist camera on rendered frames."""
