"""docs/optimizers.md is of the versions that are pinned, and leaves nothing out."""

from pathlib import Path

from invariants.optimizers import GUARANTEES, PROBES, everything
from invariants.reports.markdown import escaped

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "optimizers.md").read_text()


def test_every_optimizer_has_its_row():
    for candidate in everything():
        shown = candidate.name if candidate.source == "torch" else f"{candidate.name} (po)"
        rows = (f"| {escaped(shown)} |", f"- {escaped(candidate.name)}: ")
        assert any(row in PAGE for row in rows), shown
    assert f"ran 139 / known {len(everything())}" in PAGE


def test_it_was_measured_with_the_pinned_versions():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for package in ("torch", "pytorch_optimizer"):
        assert f"{package} {pins[package]}" in PAGE.replace("\\", "")  # Markdown's escapes


def test_every_property_and_guarantee_is_explained():
    for probe in PROBES.values():
        assert f"| `{probe.name}` | {probe.theorem} | {escaped(probe.statement)} |" in PAGE
    for guarantee in GUARANTEES:
        assert f"| `{guarantee}` |" in PAGE


def test_its_picture_is_there_and_names_the_usual_ones():
    assert "](optimizers.svg)" in PAGE
    picture = (ROOT / "docs" / "optimizers.svg").read_text()
    assert all(f">{name}<" in picture for name in ("SGD", "AdamW", "Prodigy", "Lion"))
