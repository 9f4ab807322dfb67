"""Zero-shot tracker: frames and a bank of template views in, where the object is out, with a reason for every state.

Reading order: records (what comes out, and the interface that hosts rely on), machine (the state chart), tracker (the
class that hosts build), search (proposals against a bank), flow and sam2 (the two tracking backends), __main__.
Called by serve/ and by hand: `python -m actors.tracker`. Knows nothing of Ray.
"""
