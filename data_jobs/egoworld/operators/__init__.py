"""One operator per file: a clip and its upstream tables in, one Arrow table out."""
