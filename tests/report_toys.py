"""One report of every kind, from split functions a few lines long."""

from datetime import date

import torch

from invariants import Expectation, SplitSetting, Subject, verify

NASTY = "a | b\x1b[31m\x00 <c> `d` & \ud800 $e$"
"""What breaks a table, a fence, XML, or the encoding."""


def split(g, V):
    removed = V.T @ torch.relu(V @ g)
    return g - removed, removed


def leaky(g, V):
    kept, removed = split(g, V)
    return kept, 1.001 * removed


def raising(g, V):
    raise RuntimeError(NASTY)


SUBJECTS = {
    "green": Subject(name="green", split=split),
    "red": Subject(name="red | <b> & \x01", split=leaky),
    "vacuous": Subject(name="idle", split=lambda g, V: (g.clone(), torch.zeros_like(g))),
    "error": Subject(name="raising", split=raising),
    "expected": Subject(name="known", split={SplitSetting(): leaky, SplitSetting(subtracts_stored=True): leaky}),
    "expired": Subject(name="expired", split=leaky),
    "unexpected": Subject(name="mended", split=split),
    "nonfinite": Subject(name="divides", split=lambda g, V: (g / 0.0, g / 0.0)),
    "nothing": Subject(name="empty"),
}
KINDS = tuple(SUBJECTS)
TODAY = date(2027, 1, 1)
ONLY = ("split.conservation", "split.additivity", "split.span")
KNOWN = [Expectation("split.conservation", "known since v1 | long", owner="kim", expires=date(2027, 6, 30))]
EXPECTED = {
    "expected": KNOWN,
    "expired": [Expectation("split.conservation", "known", owner="kim", expires=date(2026, 12, 31))],
    "unexpected": KNOWN,
}


def report_of(kind, tape):
    return verify(SUBJECTS[kind], tape=tape, only=ONLY, expected_violations=EXPECTED.get(kind), today=TODAY)
