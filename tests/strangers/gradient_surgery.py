"""Gradient surgery on one flat vector, as multi-task learning does it: directions are projected away one by one."""

import torch

from invariants import SplitSetting, Subject


def surgery(flat, directions):
    """flat (r,), directions (k, r) -> what is left of flat, and what was taken out."""
    left = flat.clone()
    for direction in directions:
        conflict = torch.dot(left, direction)
        if conflict > 0:
            left = left - conflict * direction
    return left, flat - left


def surgery_in_place(flat, directions):
    """The copy was optimised away, so the caller's gradient is gone, and nothing seems to have been taken out."""
    left = flat
    for direction in directions:
        conflict = torch.dot(left, direction)
        if conflict > 0:
            left.sub_(conflict * direction)
    return left, flat - left


# It loses digits where a direction has no conflict left, but it subtracts no stored part: the wider bound applies.
SETTING = SplitSetting(gate="one_sided")


def correct() -> Subject:
    return Subject(name="gradient surgery", split={SETTING: surgery})


def broken() -> Subject:
    return Subject(name="gradient surgery, broken", split={SETTING: surgery_in_place})
