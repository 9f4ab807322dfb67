"""Egocentric video in; masks, hands, poses and robot mapping out, every clip accounted for.

Reading order: manifest.py (what there is) → splitters.py (cut) → clip.py (decode) → operators/ (annotate) →
run.py (put together) → report.py (look at it).
"""
