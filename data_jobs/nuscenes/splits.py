"""The official scene lists of nuScenes and which folder a scene belongs to: train, held_out or val.

In: a scene name and a database version. Out: a split's name. Called by convert.py and synthetic.py.
Source of the lists: `nuscenes/utils/splits.py` of nuscenes-devkit 1.2.0 (facts, written here as ranges of
scene numbers). There is no split called "test": the official test scenes (v1.0-test) have no public boxes,
and scoring the validation scenes under that name would only hide that they were used.

`held_out` is for choosing thresholds and noise: every fifth scene of the official train_track half, taken out
of train. So train (630) + held_out (70) are the official 700, and val stays untouched until the final number.
"""

from __future__ import annotations

from data_jobs.runs.errors import InputError, RunError

SPLITS = ("train", "held_out", "val")

# Every fifth: 70 scenes are enough for a stable choice (about 420 camera sequences) and cost a tenth of
# training.
HELD_OUT_STRIDE = 5

_RANGES = {
    "train_detect": (
        "1-2 41-76 161-168 170-176 190-196 199-200 202-204 206-214 254-264 283-306 315-318 321 323-324 "
        "347-375 382 420-439 457-459 461-465 467-469 471-472 474-480 566 568 570-578 580 582-583 665-679 "
        "681 683-689 739-741 744 746-747 749-752 757-765 767-769 868-873 875-878 880 882-903 945 947 949 "
        "952-953 955-961 975-984 988-991 1011-1025 1074-1102 1104-1105"
    ),
    "train_track": (
        "4-11 19-34 120-135 138-139 149-152 154-155 157-160 177-185 187-188 218-220 222 224-253 328 "
        "376-381 383-386 388-403 405-408 410-419 440-456 499-502 504-515 517-518 525-539 541-546 584-600 "
        "639-664 695-698 700-701 703-719 726-728 730-731 733-738 786-787 789-792 803-806 808-813 815-817 "
        "819-822 847-856 858 860-866 992 994-1010 1044-1058 1106-1110"
    ),
    "val": (
        "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 "
        "770-771 775 777-778 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073"
    ),
    "test": (
        "77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604 606-624 "
        "827-831 833-842 844-846 932-933 935-943 1026-1043"
    ),
    "mini_train": "61 553 655 757 796 1077 1094 1100",
    "mini_val": "103 916",
}


def scene_names(official_list: str) -> tuple[str, ...]:
    """Scene names of an official list, in order. Raises RunError for a list that does not exist."""
    if official_list not in _RANGES:
        raise RunError(f"no official scene list {official_list!r}; there are {', '.join(_RANGES)}")
    names = []
    for part in _RANGES[official_list].split():
        first, _, last = part.partition("-")
        names += [f"scene-{number:04d}" for number in range(int(first), int(last or first) + 1)]
    return tuple(names)


def split_table(version: str) -> dict[str, str]:
    """Scene name → split, for a database version: the mini lists for v1.0-mini, the full ones for everything
    else."""
    if version == "v1.0-mini":
        lists = {"train": scene_names("mini_train"), "val": scene_names("mini_val")}
    else:
        tracking = scene_names("train_track")
        held_out = tracking[::HELD_OUT_STRIDE]
        train = set(scene_names("train_detect") + tracking) - set(held_out)
        lists = {"train": tuple(sorted(train)), "held_out": held_out, "val": scene_names("val")}
    return {scene: split for split, scenes in lists.items() for scene in scenes}


def split_of(scene: str, version: str) -> str:
    """The split a scene is written to. Raises InputError for a scene in no list, with a word on the test
    scenes."""
    split = split_table(version).get(scene)
    if split is None:
        test = scene in scene_names("test")
        why = "it is an official test scene, which has no public boxes" if test else "it is in no official list"
        raise InputError(f"scene {scene!r} of {version} belongs to none of {', '.join(SPLITS)}: {why}")
    return split
