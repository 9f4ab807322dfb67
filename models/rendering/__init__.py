"""A rigged hand and a small software renderer: pictures whose truth is known."""
