"""SO-101 in a closed loop: observe, decide before a deadline, limit, act, record.

Start it with `python -m robot`. Nothing here imports torch or Ray; policies that need them are handed in by
`__main__.py`, the one file of this folder that may look outside it.
"""
