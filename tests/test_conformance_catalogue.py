"""Which optimizers there are: found, not listed."""

import sys
from types import ModuleType

import pytest
import torch
from handmade_optimizers import Descent, NeedsMatrices, NeverBuilt

from invariants.errors import OptimizerImportError, SuiteError
from invariants.optimizers import catalogue, everything, named, package_version, torchs_own
from invariants.optimizers.candidate import MANNERS, Candidate, Manner
from invariants.optimizers.measure import in_its_manner, survey
from invariants.optimizers.sequences import drawn


@pytest.fixture
def package(monkeypatch):
    """A pytorch_optimizer of a release to come, with optimizers that nobody has described."""
    made = ModuleType("pytorch_optimizer")
    held = {"descent": Descent, "needsmatrices": NeedsMatrices, "neverbuilt": NeverBuilt}
    made.get_supported_optimizers = lambda: list(held)
    made.load_optimizer = held.__getitem__
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", made)
    catalogue._package.cache_clear()
    yield made
    catalogue._package.cache_clear()


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    catalogue._package.cache_clear()
    yield
    catalogue._package.cache_clear()


def test_all_that_torch_exports_is_there():
    names = {candidate.name for candidate in torchs_own()}
    exported = {
        name for name, found in vars(torch.optim).items()
        if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    }  # fmt: skip
    assert names == exported - {"Optimizer"}
    assert {"AdamW", "SGD", "LBFGS", "Muon", "SparseAdam"} <= names


@pytest.mark.usefixtures("package")
def test_an_optimizer_of_a_later_release_is_a_row_without_any_edit():
    theirs = [candidate for candidate in everything() if candidate.source == "pytorch_optimizer"]
    found = survey(theirs)
    assert found.head == "ran 2 / known 3"
    assert {report.name: report.manner for report in found.reports if report.ran} == {
        "Descent": "", "NeedsMatrices": "matrices",
    }  # fmt: skip
    [failed] = [report for report in found.reports if not report.ran]
    assert "missing 1 required positional argument" in failed.problem


@pytest.mark.usefixtures("no_package")
def test_without_the_package_torchs_own_remain():
    assert {candidate.source for candidate in everything()} == {"torch"}
    assert package_version() is None
    with pytest.raises(OptimizerImportError, match="pytorch_optimizer is not installed"):
        named("Prodigy")


def test_names_are_found_in_any_case_torchs_first():
    assert named("adamw").make is torch.optim.AdamW
    assert named("AdamW").source == "torch"
    theirs = named("pytorch_optimizer:adan")
    assert (theirs.name, theirs.source) == ("Adan", "pytorch_optimizer")
    assert named("pytorch_optimizer:adamw").source == "pytorch_optimizer"  # where it is torch's own under another name
    own = named("handmade_optimizers:Descent")
    assert (own.name, own.source, own.make) == ("Descent", "handmade_optimizers", Descent)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NoSuch", "Neither torch nor pytorch_optimizer has an optimizer 'NoSuch'"),
        ("torch:Lion", "has an optimizer 'Lion'"),
        ("nowhere.at.all:X", "does not import"),
        ("handmade_optimizers:Nothing", "has no 'Nothing'"),
        ("handmade_optimizers:torch.__name__", "is of type str, and makes no optimizer"),
    ],
)
def test_a_name_that_means_nothing_is_one_sentence(name, words):
    with pytest.raises(OptimizerImportError, match=words.replace(".", r"\.")):
        named(name)


def test_a_descriptor_that_means_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(catalogue.tomllib, "loads", lambda text: {"torch": {"SGD": {"closures": True}}})
    catalogue.descriptors.cache_clear()
    try:
        with pytest.raises(SuiteError, match=r"torch\.SGD has closures, which means nothing"):
            catalogue.descriptors()
    finally:
        catalogue.descriptors.cache_clear()


def test_every_descriptor_is_of_something_that_there_is_and_is_needed():
    """An entry whose optimizer moves in the plain manner with bare arguments would be dead weight."""
    known = {f"{c.source}.{catalogue_key(c)}": c for c in everything()}
    for name, entry in catalogue.descriptors().items():
        assert name in known, name
        if not {"kwargs", "dtype_kwargs"} & set(entry) and "why" not in entry:
            described = known[name]
            bare = Candidate(name=described.name, make=described.make)
            found = in_its_manner(bare, drawn(0))
            assert found.manner != Manner(), f"{name} needs no entry"


def catalogue_key(candidate):
    if candidate.source == "torch":
        return candidate.name
    import pytorch_optimizer

    [key] = [
        name for name in pytorch_optimizer.get_supported_optimizers()
        if pytorch_optimizer.load_optimizer(name) is candidate.make
    ]  # fmt: skip
    return key


def test_the_manners_are_all_different_and_the_plain_one_comes_first():
    assert MANNERS[0] == Manner()
    assert len(set(MANNERS)) == len(MANNERS)
