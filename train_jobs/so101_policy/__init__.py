"""Trains and judges the SO-101 lift policy in simulation."""
