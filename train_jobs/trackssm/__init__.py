"""Training of TrackSSM, public form and residual variant."""
