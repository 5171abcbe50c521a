"""docs/subjects.md: its examples run, its tables have every field and default, and what it says opens a check does."""

import re
import sys
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest
import torch

from invariants import (
    GRPO,
    LOGGED,
    AdaptedLinear,
    AdapterSetting,
    Column,
    ContrastivePair,
    ContrastiveProblem,
    Delta,
    Extraction,
    ExtractionSetting,
    FirstStep,
    FrozenLog,
    Graded,
    GradeRequest,
    GradeSetting,
    GRPOBatch,
    GRPOSetting,
    LogEvent,
    LoggedRun,
    Logs,
    LogSetting,
    ReadLog,
    Refresh,
    ResultRun,
    Series,
    SplitSetting,
    Stepped,
    Stepper,
    StepSetting,
    Subject,
    TrainRequest,
    TrainResult,
    TrainSetting,
    Verdict,
    all_invariants,
    load_subject,
    verify,
)
from invariants.labels import labels
from reference import SplitRule, Tape
from reference.tape import load

DOCUMENT = (Path(__file__).parent.parent / "docs" / "subjects.md").read_text()
EXAMPLES = {
    block.split("\n", 1)[0].removeprefix("# "): block
    for block in re.findall(r"```python\n(# \w+\.py\n.*?)```", DOCUMENT, flags=re.S)
}
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCUMENT, flags=re.S | re.M))
SILENT = {  # what an example of a capability leaves unsaid, by the theory or since it does not show it
    "my_split": {"split.additivity", "split.preserves_magnitude"},
    "my_steps": {
        "optimizer.matches_reference", "optimizer.refresh_displacement_leak", "optimizer.refresh_span",
        "optimizer.no_ratchet", "optimizer.drift_gauge", "optimizer.gate_starts_closed", "optimizer.noise_drift",
        "optimizer.noise_rectified", "optimizer.noise_total", "optimizer.constant_calls",
    },
    "my_settings": {
        "optimizer.refresh_displacement_leak", "optimizer.refresh_span", "optimizer.no_ratchet",
        "optimizer.drift_gauge", "optimizer.gate_starts_closed", "optimizer.noise_drift", "optimizer.noise_total",
        "optimizer.constant_calls",
    },
    "my_adapter": set(), "my_loss": set(), "my_extraction": set(),
    "my_training": {
        "training.two_grades", "training.refresh_ablates",
        *(f"extraction.run_{name}" for name in ("orthonormal", "span", "orientation", "floor", "separation")),
    },
    "my_grader": {"grading.diagonal", "grading.independent"},
    "my_logs": {"logs.reads_released"},
}  # fmt: skip
HANDED_IN = {
    "The subject": (Subject,), "split": (SplitSetting,), "routed_step": (Stepped, Stepper, StepSetting, SplitRule),
    "adapter": (AdaptedLinear, AdapterSetting), "grpo": (GRPOBatch, GRPO, GRPOSetting),
    "extraction": (ContrastiveProblem, ExtractionSetting), "A tape of your own": (Tape,),
    "train": (TrainRequest, TrainResult, FirstStep, Refresh, Extraction, ContrastivePair, TrainSetting),
    "grade": (GradeRequest, Graded, GradeSetting),
    "logs": (Logs, LoggedRun, LogEvent, ReadLog, Column, ResultRun, Delta, Series, LogSetting, FrozenLog),
}  # fmt: skip


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """Loads an example's subject, where all of them lie."""
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: load_subject(f"{name}:subject")
    for name in EXAMPLES:
        sys.modules.pop(name.removesuffix(".py"), None)


def checked(subject, tape, **options):
    return verify(subject, tape=tape, profile="quick", shrink=False, **options)


def verdicts(subject, tape, *ids):
    return {r.invariant.id: r.verdict for r in checked(subject, tape, only=ids).results}


def test_every_example_is_known():
    assert {name.removesuffix(".py") for name in EXAMPLES} == {*SILENT, "record_tape"}


@pytest.mark.parametrize("name", SILENT)
def test_an_example_is_accused_of_nothing_and_shows_nearly_all_there_is(examples, name, small_tape):
    subject = examples(name)
    due = {i.id for i in all_invariants() if subject.settings(i.capability)}
    report = checked(subject, small_tape, only=due)
    assert report.ok, [(r.invariant.id, r.worst.reason) for r in report.results if not r.verdict.green]
    assert {r.invariant.id for r in report.results if r.verdict is not Verdict.HOLDS} == SILENT[name]


@pytest.mark.parametrize("section", HANDED_IN)
def test_every_field_is_explained(section):
    for kind in HANDED_IN[section]:
        for name in getattr(kind, "_fields", None) or [f.name for f in fields(kind)]:
            assert f"`{name}`" in SECTIONS[section], f"{kind.__name__}.{name}"


def test_every_logged_name_is_explained():
    for name in LOGGED:
        assert f"| `{name}` |" in SECTIONS["routed_step"]


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("split", SplitSetting),
        ("routed_step", StepSetting),
        ("grpo", GRPOSetting),
        ("extraction", ExtractionSetting),
        ("train", TrainSetting),
        ("grade", GradeSetting),
        ("logs", LogSetting),
    ],
)
def test_the_defaults_are_those_of_the_settings(section, kind):
    for field in fields(kind):
        made = field.default_factory is not MISSING
        default = f"{field.default_factory.__name__}()" if made else repr(field.default).replace("'", '"')
        assert f"| `{field.name}` | `{default}` |" in SECTIONS[section], field.name


def test_every_id_that_is_named_is_one():
    known = {i.id for i in all_invariants()}
    families = "|".join(sorted({i.family for i in all_invariants()}))
    named = re.findall(rf"`((?:{families})\.\w+)`", DOCUMENT)
    assert len(named) > 20
    assert set(named) <= known


def test_the_labels_are_what_settings_are_called(examples):
    shown = set(re.findall(r"`([^`]+)`", re.search(r"\| capability \| label .*?\n\n", DOCUMENT, flags=re.S)[0]))
    settings = [
        SplitSetting(), SplitSetting(gate="no_gate", overshoot=1.5), *examples("my_settings").routed_step,
        StepSetting(optimizer="RAdam", space="update", clip=None), AdapterSetting(), GRPOSetting(),
        GRPOSetting(beta=0.04), GRPOSetting(clip_epsilon=None), ExtractionSetting(),
        ExtractionSetting(floors=(), tie=None), TrainSetting(), GradeSetting(), LogSetting(),
    ]  # fmt: skip
    named = set(labels(settings).values())
    capabilities = {"split", "routed_step", "adapter", "grpo", "extraction", "train", "grade", "logs", "label"}
    assert shown - capabilities - {"one_sided"} <= named
    assert '"ID @ gradient / clip before / AdamW" REASON' in DOCUMENT
    assert "gradient / clip before / AdamW" in named


def opened_by(section):
    """Part -> the invariants that a table's row says it opens."""
    opened = {}
    for first, last in re.findall(r"^\| (`[^|]*`) \|.*\| ([^|]*) \|$", SECTIONS[section], flags=re.M):
        ids = {i.id for i in all_invariants() for id in re.findall(r"`(\w+\.\w+\*?)`", last) if re.fullmatch(id, i.id)}
        opened |= {part: ids for part in re.findall(r"`(\w+)`", first) if ids}
    return opened


@pytest.mark.parametrize(
    ("section", "name", "parts"),
    [
        ("adapter", "my_adapter", ["ablated", "as_base", "weight", "merge", "unmerge", "export"]),
        ("grpo", "my_loss", ["advantages", "k3", "by_source"]),
        ("logs", "my_logs", ["write", "columns", "deltas", "series"]),
        ("routed_step", "my_steps", ["state_dict", "load_state_dict", "accumulate"]),
    ],
)
def test_without_a_part_exactly_what_it_opens_falls_silent(examples, section, name, parts, small_tape):
    subject, opened = examples(name), opened_by(section)
    ids = {id for part in parts for id in opened[part]}
    for part in parts:
        less = {s: lacking(made, part) for s, made in subject.settings(section).items()}
        found = verdicts(replace(subject, **{section: less}), small_tape, *ids)
        silent = {id for id, verdict in found.items() if verdict is Verdict.NOT_APPLICABLE}
        assert silent == opened[part], part
        assert all(verdict.green for verdict in found.values())


def lacking(made, part):
    if isinstance(made, GRPO):
        return replace(made, **{part: None})
    return lambda *given, **options: replace(made(*given, **options), **{part: None})


def test_a_tape_is_recorded_and_replayed(examples, tmp_path):
    exec(compile(EXAMPLES["record_tape.py"], "record_tape.py", "exec"), {})
    tape = load(tmp_path / "run.safetensors")
    assert (tape.steps, tape.header["run"]) == (5, "two Linears on noise")
    report = checked(examples("my_steps"), tape, only=["clip.covers_both", "optimizer.keeps_sum"])
    assert report.ok
    assert report.ran == 2
    assert report.tape["digest"] == tape.digest()


def both_ways(g, V):
    removed = 1.5 * V.T @ (V @ g)
    return g - removed, removed


def narrow(g, V):
    removed = (V.float().T @ torch.relu(V.float() @ g.float())).to(g.dtype)
    return g - removed, removed


@pytest.mark.parametrize(
    ("split", "declared", "dtype"),
    [
        (both_ways, SplitSetting(gate="no_gate", overshoot=1.5), torch.float64),
        (narrow, SplitSetting(), torch.float32),
    ],
)
def test_what_is_right_under_its_own_setting_is_red_under_another(split, declared, dtype, small_tape):
    blamed = checked(Subject(name="mine", split=split), small_tape, only=["split"])
    assert "split.matches_reference" in {r.invariant.id for r in blamed.results if r.verdict is Verdict.VIOLATED}
    assert checked(Subject(name="mine", split={declared: split}, dtype=dtype), small_tape, only=["split"]).ok


def declared_and_not(examples, name, capability, id, change, *settings):
    """The verdicts on a changed example, under each setting."""
    (_, made), *_ = examples(name).settings(capability).items()
    tape = Tape(**{part: {"m": torch.eye(2, 3)} for part in ("gradients", "basis")}, start={"m": torch.zeros(3)})
    return [verdicts(Subject(name="mine", **{capability: {s: change(made)}}), tape, id)[id] for s in settings]


def test_a_clip_with_a_larger_epsilon(examples):
    def shorter(make):
        def loop(start, basis, *, intervention, max_norm):
            return make(start, basis, intervention=intervention, max_norm=max_norm and max_norm / (1 + 1e-4))

        return loop

    found = declared_and_not(
        examples, "my_steps", "routed_step", "clip.reaches_limit", shorter, StepSetting(), StepSetting(clip_epsilon=0.1)
    )
    assert found == [Verdict.VIOLATED, Verdict.HOLDS]


def test_a_loop_without_an_arm(examples):
    def without_erase(make):
        def loop(start, basis, *, intervention, max_norm):
            assert intervention != "erase"
            return make(start, basis, intervention=intervention, max_norm=max_norm)

        return loop

    settings = StepSetting(), StepSetting(interventions=("none", "route"))
    found = declared_and_not(examples, "my_steps", "routed_step", "optimizer.erase_match", without_erase, *settings)
    assert found == [Verdict.ERROR, Verdict.NOT_APPLICABLE]


def test_a_loss_that_is_on_policy_only(examples):
    def on_policy(made):
        return lambda batch: made.loss(replace(batch, old_log_probs=None))

    settings = GRPOSetting(), GRPOSetting(clip_epsilon=None)
    found = declared_and_not(examples, "my_loss", "grpo", "grpo.clipped_surrogate", on_policy, *settings)
    assert found == [Verdict.VIOLATED, Verdict.NOT_APPLICABLE]


def test_an_extraction_without_floors(examples):
    def without_floors(extract):
        return lambda problem: extract(replace(problem, relative_floor=0.0, global_floor=0.0))

    settings = ExtractionSetting(), ExtractionSetting(floors=())
    found = declared_and_not(
        examples, "my_extraction", "extraction", "extraction.noise_floor", without_floors, *settings
    )
    assert found == [Verdict.VIOLATED, Verdict.NOT_APPLICABLE]


def test_what_all_but_does_not_except_is_claimed_by_name(examples, small_tape):
    settings = examples("my_settings").routed_step
    bold = {replace(s, claims=s.claims and s.claims | {"optimizer.no_ratchet"}): make for s, make in settings.items()}
    id = "optimizer.no_ratchet"
    subject = Subject(name="bold", routed_step=bold)
    assert verdicts(subject, small_tape, id)[id] is Verdict.VIOLATED
    expected = {f"{id} @ gradient / clip before / AdamW": "one-sided gradients do ratchet"}
    (result,) = checked(subject, small_tape, only=[id], expected_violations=expected).results
    assert result.verdict is Verdict.EXPECTED_VIOLATION
