"""training.*: what must have happened for two equal runs to mean something, and evidence that does not fit together."""

from dataclasses import replace

import pytest
import torch

from invariants import Subject, TrainSetting, Verdict, verify
from invariants.cases.train import TrainCase, runs
from invariants.families.training_step import due
from invariants.museum.policy import END, NEW
from invariants.museum.trainer import LR, MICRO_BATCHES, SETTING, Trainer, train_with
from invariants.subjects import reference_training
from invariants.trials import TrainTrial
from reference import loop

train = train_with(Trainer)


def result(function, id, tape, setting=SETTING):
    [found] = verify(Subject(name="mine", train={setting: function}), tape=tape, only=[id]).results
    return found


def changed(**fields):
    """The correct trainer, which shows something else."""
    return lambda request: replace(train(request), **fields)


def trial(function=train, setting=SETTING, **case):
    return TrainTrial(function, setting=setting, case=TrainCase(seed=0, **case), dtype=torch.float64)


@pytest.mark.parametrize(
    ("id", "function", "missing"),
    [
        ("training.oracle_blind", changed(oracle=[True, False]), "a label was changed"),
        (
            "training.oracle_blind",
            lambda request: replace(train(request), oracle=[request.permuted_oracle] * 3),
            "right and wrong ones",
        ),
        ("training.evaluation_neutral", changed(evaluations=0), "evaluated"),
        ("training.logging_neutral", changed(records=0), "logged"),
        ("training.measuring_neutral", changed(removed=[0.0]), "something would be removed"),
        ("training.quarantine_moves_iff_routed", changed(removed=[]), "something removed"),
        ("training.reproducible", lambda request: train(replace(request, seed=7)), "another seed differs"),
        ("training.resumes", lambda request: train(replace(request, seed=7)), "the seed matters"),
    ],
)
def test_what_never_occurred_is_vacuous(id, function, missing, small_tape):
    found = result(function, id, small_tape)
    assert found.verdict is Verdict.VACUOUS
    assert missing in found.worst.reason


@pytest.mark.parametrize(
    ("id", "field"),
    [
        ("training.oracle_blind", "oracle"),
        ("training.evaluation_neutral", "evaluations"),
        ("training.logging_neutral", "records"),
        ("training.measuring_neutral", "removed"),
        ("training.quarantine_moves_iff_routed", "removed"),
        ("training.step_gradient", "first"),
        ("training.zero_variance", "first"),
        ("training.two_grades", "first"),
        ("training.refresh_ablates", "refreshes"),
        ("extraction.run_orthonormal", "extractions"),
        ("extraction.run_span", "extractions"),
        ("extraction.run_orientation", "extractions"),
        ("extraction.run_floor", "extractions"),
        ("extraction.run_separation", "extractions"),
    ],
)
def test_without_evidence_a_check_says_what_it_would_read(id, field, small_tape):
    found = result(changed(**{field: None}), id, small_tape)
    assert found.verdict is Verdict.NOT_APPLICABLE
    assert found.worst.reason.startswith("the subject does not show ")


@pytest.mark.parametrize(
    ("id", "setting", "reason"),
    [
        ("training.oracle_blind", replace(SETTING, flags=()), "the trainer cannot be asked for permuted_oracle"),
        ("training.measuring_neutral", replace(SETTING, interventions=("route",)), "the trainer has no none"),
        ("training.resumes", replace(SETTING, resumable=False), "the trainer cannot be resumed"),
        (
            "training.quarantine_moves_iff_routed",
            replace(SETTING, interventions=("none", "erase")),
            "the trainer has no route",
        ),
        ("training.two_grades", replace(SETTING, teacher=False), "the trainer has no teacher"),
    ],
)
def test_what_a_trainer_cannot_do_is_not_asked_of_it(id, setting, reason, small_tape):
    found = result(train, id, small_tape, setting)
    assert (found.verdict, found.worst.reason) == (Verdict.NOT_APPLICABLE, reason)


def test_a_run_that_begins_again_where_it_should_go_on_is_no_resumption(small_tape):
    found = result(lambda request: train(replace(request, resume=False)), "training.resumes", small_tape)
    assert found.verdict is Verdict.ERROR
    assert "made 5 steps where 4 were due" in found.worst.reason


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda request: {}, "must return a TrainResult"),
        (changed(deployed={}), "there are none"),
        (changed(quarantine={"a": 1.0}), "must map names to tensors"),
        (changed(first="the first"), "must be of type FirstStep"),
        (changed(refreshes=[3]), "must be of type Refresh"),
        (changed(extractions=[3]), "must be of type Extraction"),
    ],
)
def test_a_result_of_another_shape_is_an_error(function, said, small_tape):
    found = result(function, "training.reproducible", small_tape)
    assert found.verdict is Verdict.ERROR
    assert said in found.worst.reason


def test_parameters_that_come_and_go_are_an_error(small_tape):
    def moody(request):
        return replace(train(request), other={"bias": torch.ones(2)} if request.evaluate else {})

    found = result(moody, "training.evaluation_neutral", small_tape)
    assert found.verdict is Verdict.ERROR
    assert "different parameters" in found.worst.reason


def test_whatever_else_is_trained_is_compared_too(small_tape):
    def drifting(request):
        return replace(train(request), other={"bias": torch.full((2,), float(request.log))})

    found = result(drifting, "training.logging_neutral", small_tape)
    assert found.verdict is Verdict.VIOLATED
    assert "other, bias" in found.worst.measured.where


def test_evidence_whose_parts_do_not_fit_is_an_error(small_tape):
    def short(request):
        made = train(request)
        return replace(made, first=made.first and replace(made.first, prompts=made.first.prompts[1:]))

    found = result(short, "training.step_gradient", small_tape)
    assert found.verdict is Verdict.ERROR
    assert "one of each for every reward" in found.worst.reason


# The first step


def test_the_due_gradient_is_that_of_a_loss_written_down_by_hand():
    first = trial().run(steps=1).first
    exact, size = due(first)
    total = torch.zeros(())
    advantages = first.rewards - first.rewards.mean(dim=1, keepdim=True)
    for prompt, completion, A in zip(first.prompts, first.completions, advantages.flatten(), strict=True):
        tokens = torch.cat([prompt, completion])
        log_probs = first.logits(tokens).log_softmax(-1)
        scored = sum(log_probs[i - 1, tokens[i]] for i in range(len(prompt), len(tokens)))
        total = total - A * scored / (first.rewards.numel() * NEW)
    by_hand = torch.autograd.grad(total, [*first.vectors.values()])
    for g, name in zip(by_hand, exact, strict=True):
        torch.testing.assert_close(g, exact[name], rtol=1e-12, atol=1e-15)
    assert size >= float(torch.cat([*exact.values()]).norm()) > 0


def test_the_first_step_of_the_museums_trainer_shows_what_can_go_wrong():
    first = trial().run(steps=1).first
    assert first.teacher.any()
    assert not first.teacher.all()
    assert {len(completion) for completion in first.completions} >= {3, 4}
    assert all(END not in completion[:-1] for completion in first.completions)
    assert len(first.rewards) % MICRO_BATCHES == 0
    equal = (first.rewards == first.rewards[:, :1]).all(dim=1)
    assert equal.any()
    assert not equal.all()


@pytest.mark.parametrize("off", [1e-9, -1e-9])
def test_a_gradient_that_is_off_in_one_entry_is_seen(off, small_tape):
    def nudged(request):
        made = train(request)
        if made.first is None:
            return made
        g = {name: t.clone() for name, t in made.first.gradient.items()}
        g["head"][0] += off
        return replace(made, first=replace(made.first, gradient=g))

    assert result(nudged, "training.step_gradient", small_tape).verdict is Verdict.VIOLATED


def test_a_policy_that_computes_in_float32_says_so(small_tape):
    def narrow(declared):
        def of(request):
            made = train(request)
            if made.first is None:
                return made
            g = {name: t.float().double() for name, t in made.first.gradient.items()}
            return replace(made, first=replace(made.first, gradient=g, computed_in=declared))

        return of

    assert result(narrow(None), "training.step_gradient", small_tape).verdict is Verdict.VIOLATED
    assert result(narrow(torch.float32), "training.step_gradient", small_tape).verdict is Verdict.HOLDS


# Runs


def test_a_run_is_made_once_and_again_only_when_asked():
    calls = []

    def counting(request):
        calls.append(request)
        return train(request)

    one = trial(counting)
    assert one.run() is one.run(intervention="route")
    assert len(calls) == 1
    one.anew()
    assert len(calls) == 2
    assert not calls[0].folder.exists()
    stopped, rest = one.interrupted(2)
    assert (stopped.steps, rest.steps) == (2, 3)
    assert calls[-1].folder == calls[-2].folder
    assert (calls[-2].stop_after, calls[-1].stop_after, calls[-1].resume) == (2, None, True)


def test_the_schedule_of_a_stopped_run_is_that_of_the_whole_one():
    seen = []

    class Listening(Trainer):
        def rate(self):
            seen.append(super().rate())
            return seen[-1]

    trial(train_with(Listening)).interrupted(2)
    assert seen == [LR * (1 - step / 5) for step in range(5)]


def test_the_case_is_a_short_run_and_can_be_shorter():
    [case] = runs(3)
    assert (case.seed, case.size, case.told) == (3, 5, "5 steps, seed 3")
    assert [shorter.steps for shorter in case.simpler()] == [4]
    assert list(TrainCase(seed=0, steps=2).simpler()) == []


def test_most_checks_look_at_the_last_arm_that_there_is():
    assert TrainSetting().intervention == "route"
    assert TrainSetting(interventions=("none",)).intervention == "none"


def test_the_specifications_loop_holds_and_shows_what_a_loop_without_a_teacher_can(small_tape):
    subject = Subject(name="reference", train={reference_training.SETTING: reference_training.train})
    report = verify(subject, tape=small_tape, only=["training"])
    assert report.ok
    silent = {r.invariant.id for r in report.results if r.verdict is not Verdict.HOLDS}
    assert silent == {"training.two_grades", "training.refresh_ablates"}


def test_the_specifications_trainer_makes_the_first_step_of_its_loop():
    model = reference_training.MODEL
    config = replace(reference_training.config(model), steps=1)
    [(_, tape)] = loop.run(config)
    made = trial(reference_training.train, reference_training.SETTING).run(steps=1, seed=model + 2)  # as the loop draws
    assert {name: g.tolist() for name, g in made.first.gradient.items()} == {
        name: g[0].tolist() for name, g in tape.gradients.items()
    }
    assert any(g.any() for g in tape.gradients.values())


# What bases were made of


def shown_otherwise(**fields):
    """The correct trainer, whose first extraction shows something else."""

    def of(request):
        made = train(request)
        return replace(made, extractions=[replace(each, **fields) for each in made.extractions])

    return of


def test_the_differences_are_those_of_a_loss_written_down_by_hand():
    [first, *refreshed] = trial().bases
    assert len(refreshed) == 2
    basis = refreshed[-1]
    D, off = basis.differences(basis.shown.pairs)
    for number, pair in enumerate(basis.shown.pairs):
        nlls = []
        for completion in (pair.hack, pair.clean):
            tokens = torch.cat([pair.prompt, completion])
            log_probs = basis.shown.logits(tokens).log_softmax(-1)
            scored = [log_probs[i - 1, tokens[i]] for i in range(len(pair.prompt), len(tokens))]
            nlls.append(-sum(scored) / len(scored))
        by_hand = torch.autograd.grad(nlls[0] - nlls[1], [*basis.shown.vectors.values()])
        for name, g in zip(basis.shown.vectors, by_hand, strict=True):
            torch.testing.assert_close(D[name][number], g, rtol=1e-12, atol=1e-15)
        assert 0 < float(off[number]) < 1e-10
    assert any(not torch.equal(D[name], rows) for name, rows in first.differences(first.shown.pairs)[0].items())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pairs": []}, "must show its pairs"),
        ({"basis": {"head": torch.eye(6).double()}}, "of the same modules"),
        ({"basis": {"head": torch.eye(6).double(), "hidden": torch.eye(3).double()}}, "it must be (k', 8)"),
        ({"basis": {"head": torch.eye(6).double(), "hidden": torch.zeros(8).double()}}, "it must be (k', 8)"),
    ],
)
def test_an_extraction_whose_parts_do_not_fit_is_an_error(fields, said, small_tape):
    found = result(shown_otherwise(**fields), "extraction.run_orthonormal", small_tape)
    assert found.verdict is Verdict.ERROR
    assert said in found.worst.reason


def test_a_run_without_floors_or_held_out_pairs_is_not_asked_about_them(small_tape):
    without = shown_otherwise(relative_floor=0.0)
    assert result(without, "extraction.run_floor", small_tape).verdict is Verdict.NOT_APPLICABLE
    for fields in ({"held_out": []}, {"separation": None}):
        found = result(shown_otherwise(**fields), "extraction.run_separation", small_tape)
        assert found.verdict is Verdict.NOT_APPLICABLE


def test_a_basis_that_is_turned_by_little_is_seen(small_tape):
    def turned(request):
        made = train(request)
        for each in made.extractions:
            V = each.basis["hidden"]
            V[0] = torch.nn.functional.normalize(V[0] + 1e-6 * torch.linspace(-1, 1, 8).double(), dim=0)
        return made

    assert result(turned, "extraction.run_span", small_tape).verdict is Verdict.VIOLATED


def test_zero_rows_stand_in_for_axes_that_are_left_out(small_tape):
    def padded(request):
        made = train(request)
        pad = {name: torch.zeros(2, V.shape[1]).double() for name, V in made.extractions[0].basis.items()}
        return replace(made, extractions=[
            replace(each, basis={name: torch.cat([V, pad[name]]) for name, V in each.basis.items()})
            for each in made.extractions
        ])  # fmt: skip

    for name in ("orthonormal", "span", "orientation", "floor", "separation"):
        assert result(padded, f"extraction.run_{name}", small_tape).verdict is Verdict.HOLDS
