"""Plain classes that own one model each and live long; only spawn.py knows Ray.

Every actor has four verbs: `load`, `warm_up`, its work, `close`. What goes in and out is in messages.py.
"""
