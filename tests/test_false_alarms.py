"""The scan for false alarms: settings take turns, and what is red is counted."""

from dataclasses import replace

import false_alarms
import pytest
from false_alarms import Tally, run, share_of

from invariants.contracts import SETTINGS
from invariants.museum import CORRECT, FAULTS
from invariants.museum.matrix import tape


def every_setting(subject):
    return [(capability, setting) for capability in SETTINGS for setting in subject.settings(capability)]


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_settings_take_turns_each_as_often_as_any_other(parts):
    shares = [every_setting(share_of(CORRECT, turn, parts)) for turn in range(parts)]
    together = [item for share in shares for item in share]
    assert sorted(map(repr, together)) == sorted(map(repr, every_setting(CORRECT)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert every_setting(share_of(CORRECT, parts + 1, parts)) == shares[1 % parts]


def test_what_is_red_is_an_alarm_and_what_holds_has_a_margin(monkeypatch):
    [broken] = [fault.subject() for fault in FAULTS if fault.name == "sign of V flipped"]
    correct = replace(CORRECT, **dict.fromkeys(capability for capability in SETTINGS if capability != "split"))
    monkeypatch.setattr(false_alarms, "recorded_tape", tape)
    monkeypatch.setattr(false_alarms, "whole", {"broken": broken, "correct": correct}.__getitem__)
    name, well = run(("correct", 1, 1))
    assert (name, well.seeds, well.alarms) == ("correct", 1, [])
    assert 0 < well.margin <= 1
    assert well.checks > 100
    assert "seed 1" in well.nearest
    _, ill = run(("broken", 1, 1))
    assert {alarm["at"].partition(" @ ")[0] for alarm in ill.alarms} == {"split.one_sided", "split.matches_reference"}
    assert {alarm["verdict"] for alarm in ill.alarms} == {"violated"}


def test_tallies_add_up_and_keep_the_largest_margin():
    total = Tally(seeds=1, checks=2, margin=0.5, nearest="a", alarms=[{"at": "x"}])
    total.add(Tally(seeds=1, checks=3, margin=0.4, nearest="b", alarms=[{"at": "y"}]))
    assert total == Tally(seeds=2, checks=5, margin=0.5, nearest="a", alarms=[{"at": "x"}, {"at": "y"}])
