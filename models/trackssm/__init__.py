"""TrackSSM: a state-space network that predicts where a tracked box will be, in the public form and as a residual."""
