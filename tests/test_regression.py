"""What a released version wrote stays readable, with the same meaning."""

import json
from datetime import date

import pytest
import torch

from invariants import Expectation, SplitSetting, Subject, as_json, verify
from projected_grpo import Basis
from reference.tape import load
from regression import pinned

TAPE_DIGEST = "945306a5884eb8ca80b1741be0b1cb0e9b2c73ee90f73106e44b79a7e9d8c302"
BASIS_DIGEST = "cbaab03f9137ee1bda2db37721ea48127f495b5236ecee0cec4502216b35767d"


def test_a_tape_of_version_1_is_read_as_it_was_written():
    tape = load(pinned("gradient-tape-v1.safetensors"))
    assert tape.digest() == TAPE_DIGEST
    assert list(tape.gradients) == ["first", "second"]
    assert tape.steps == 3
    assert (tape.basis["first"].shape, tape.basis["second"].shape) == ((3, 12), (0, 8))
    assert tape.header["source"] == "synthetic"


def test_a_basis_of_version_1_is_read_as_it_was_written():
    basis = Basis.load(pinned("hack-basis-v1.safetensors"))
    assert basis.digest() == BASIS_DIGEST
    assert basis.fingerprints == {"first": "0" * 64}
    assert torch.equal(basis["first"], load(pinned("gradient-tape-v1.safetensors")).basis["first"])


def test_a_report_keeps_every_key_of_version_1_with_its_type():
    def split(g, V):
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed

    tape = load(pinned("gradient-tape-v1.safetensors"))
    today = as_json(verify(Subject(name="pinned", split=split), tape=tape, only=["split"]))
    then = json.loads(pinned("report-v1.json").read_text())
    assert today["schema_version"] == then["schema_version"] == 1
    assert_holds_all(json.loads(json.dumps(today)), {key: value for key, value in then.items() if key != "results"})
    results = {row["id"]: row for row in today["results"]}
    for row in then["results"]:
        assert_holds_all(results[row["id"]], row)


def test_a_report_keeps_what_was_added_to_version_1_with_its_type():
    def split(g, V):
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed

    def leaky(g, V):
        kept, removed = split(g, V)
        return kept, 2 * removed

    then = json.loads(pinned("report-v1-expectations.json").read_text())
    known = Expectation(
        "split.conservation", "kept twice", setting="one_sided [subtracts_stored=True]", owner="kim",
        expires=date(9999, 12, 31),
    )  # fmt: skip
    today = as_json(
        verify(
            Subject(name="pinned", split={SplitSetting(): split, SplitSetting(subtracts_stored=True): leaky}),
            tape=load(pinned("gradient-tape-v1.safetensors")),
            only=[row["id"] for row in then["results"]],
            expected_violations=[known],
        )
    )
    assert_holds_all(json.loads(json.dumps(today)), then)
    assert [row["verdict"] for row in today["results"]] == [row["verdict"] for row in then["results"]]


def assert_holds_all(today, then):
    """Every key of `then` is there with a value of the same JSON type, null standing for a number or a text."""
    assert set(then) <= set(today)
    for key, value in then.items():
        if isinstance(value, dict):
            assert_holds_all(today[key], value)
        elif isinstance(value, list):
            for old, new in zip(value, today[key], strict=True):
                assert_holds_all(new, old)
        elif value is not None and today[key] is not None:
            kinds = (int, float) if type(value) in (int, float) else (type(value),)
            assert type(today[key]) in kinds, key


def test_a_name_that_is_not_pinned_lists_what_is():
    with pytest.raises(FileNotFoundError, match=r"gradient-tape-v1\.safetensors"):
        pinned("gradient-tape-v0.safetensors")
