"""Batch jobs on Ray Data. The shared promise: every item ends as done or as a dead letter with its cause."""
