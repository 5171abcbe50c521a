"""The proofs: the short ones run here, every algebraic invariant rests on one, and each statement can be refuted."""

import json
import re
import sys
from pathlib import Path

import pytest
import sympy as sp

from invariants import all_invariants
from invariants.proofs import CONTRACTS, RefutedError, all_proofs, proof, supported
from invariants.proofs.__main__ import main
from invariants.proofs.algebra import relu
from invariants.proofs.clip import joint_breaks_erase_match
from invariants.proofs.optimizers import L1Decay, coupled
from invariants.proofs.runner import outcome, prove
from invariants.proofs.split import split

PROOFS = {p.name: p for p in all_proofs()}
SHORT = [p for p in all_proofs() if not p.slow]


@pytest.mark.parametrize("one", SHORT, ids=[p.name for p in SHORT])
def test_a_short_proof_goes_through(one):
    if one.kind == "float lemma":
        pytest.importorskip("z3", reason="z3 is not installed; the extra proofs brings it")
    assert one.demonstrate() > 0


def test_every_algebraic_invariant_rests_on_a_proof():
    ids = {invariant.id for invariant in all_invariants()}
    assert ids - CONTRACTS.keys() == supported().keys() & (ids - CONTRACTS.keys())
    assert supported().keys() | CONTRACTS.keys() <= ids
    assert not supported().keys() & CONTRACTS.keys()


def test_every_theorem_with_algebra_has_a_proof():
    proved = {p.theorem for p in all_proofs()}
    without = {"T13", "T14", "T19"}  # inertness, resumption and non-interference are contracts of programs
    assert proved >= {f"T{n}" for n in (*range(1, 19), 20)} - without


def test_the_theory_names_every_proof_and_every_check_that_rests_on_one():
    theory = (Path(__file__).parent.parent / "docs" / "theory.md").read_text()
    named = set(re.findall(r"`([a-z0-9_.]+)`", theory))
    assert named >= PROOFS.keys() | supported().keys() | CONTRACTS.keys()


def overshot_in_one_part(g, V, gate="one_sided", overshoot=1):
    kept, removed = split(g, V, gate, overshoot)
    return kept, 2 * removed


def with_the_sign_of_the_basis_flipped(g, V, gate="one_sided", overshoot=1):
    return split(g, -V, gate, overshoot)


def counting_rows(g, V, gate="one_sided", overshoot=1):
    return split(g, V, gate, overshoot * (1 + V.rows))


def with_a_threshold(g, V, gate="one_sided", overshoot=1):
    kept, removed = split(g, V, gate, overshoot)
    return kept - V.T * sp.ones(V.rows, 1), removed + V.T * sp.ones(V.rows, 1)


class Signed:
    def step(self, p, g, state):
        return p - g.applyfunc(sp.sign), state


MUTATED = {
    "overshoot in one part only": ("split.conservation", (overshot_in_one_part,), {}),
    "Pythagoras for reverse": ("split.pythagoras", (), {"gates": ("reverse",)}),
    "Pythagoras with the parts apart": ("split.pythagoras", (overshot_in_one_part,), {}),
    "a flipped basis": ("split.one_sided", (with_the_sign_of_the_basis_flipped,), {}),
    "idempotence for reverse": ("split.idempotence", (), {"gates": ("reverse",)}),
    "a threshold in the split": ("split.homogeneity", (with_a_threshold,), {}),
    "a threshold in a linear gate": ("split.additivity", (with_a_threshold,), {}),
    "no_gate as if it were not additive": ("split.relu_is_not_additive", ("no_gate",), {}),
    "zero rows that count": ("split.zero_rows", (counting_rows,), {}),
    "a part that is not in the span": ("split.span", (lambda g, V, *_: (g, g),), {}),
    "removed that does not turn with the frame": ("split.rotation", (lambda g, V, *_: (0 * g, g.applyfunc(abs)),), {}),
    "another share of rounding": ("split.conservation_bound", (lambda u: u,), {}),
    "a joint norm of one part": ("clip.joint_norm", (overshot_in_one_part,), {}),
    "a clip that lets parts through": ("clip.before_reaches_the_limit", (overshot_in_one_part,), {}),
    "a clip that normalises": ("clip.factor", (lambda length, limit: sp.sympify(limit) / length,), {}),
    "joint without the joint clip": ("clip.joint_breaks_erase_match", ("before",), {}),
    "L1 decay as linear": ("optimizer.linear_step_keeps_the_sum", ([(L1Decay(), "L1")],), {}),
    "signs that stay in the span": ("optimizer.linear_span", ([(Signed(), "signs")],), {}),
    "SGD as if it were AdamW": ("optimizer.adamw_is_not_linear", (lambda g, lr=1, eps=0: -lr * g,), {}),
    "SGD leaving the span": ("optimizer.adamw_leaves_the_span", (lambda g: -g,), {}),
    "an optimizer that couples": ("optimizer.erase_match", (coupled,), {}),
    "erase on other gradients": ("optimizer.one_point_erase_match", (sp.symbols("other:3"),), {}),
    "update space, reversed": ("optimizer.update_space", (lambda g, V: split(g, V, "reverse"),), {}),
    "displacement space, overshot": ("optimizer.displacement_space", (overshot_in_one_part,), {}),
    "shares of uniform noise": ("noise.shares", ((sp.Rational(1, 3), sp.Rational(1, 5)),), {}),
    "a ratchet without a gate": ("noise.ratchet", (lambda g, V: split(g, V, "no_gate"),), {}),
    "one_sided as if it did not drift": ("noise.linear_gates_do_not_drift", ("one_sided",), {}),
    "a gate that has seen the step": ("noise.past_gates_do_not_drift", (lambda past, c: c,), {}),
    "a total that is split twice": ("noise.a_total_is_split_once", ((lambda c: 2 * c,),), {}),
    "a quarantine that is halved": (
        "adapter.equal_gradients", (lambda d, q: (d + q / 2).applyfunc(lambda z: z),), {}
    ),
    "an output that is never the base's": ("adapter.zero_vectors", (lambda d, q: d + q,), {}),
    "a merge that leaves a part out": ("adapter.merge", (lambda delta: sp.zeros(2, 2),), {}),
    "an export with the quarantine": ("adapter.export", (sp.Matrix(sp.symbols("d:2", real=True))
                                                         + sp.Matrix(sp.symbols("q:2", real=True)),), {}),
    "one sign of a pair": ("adapter.paired_signs", (1,), {}),
    "advantages without a mean": ("grpo.advantages", (lambda R: R,), {}),
    "advantages of equal rewards": ("grpo.equal_rewards", (lambda R: R,), {}),
    "a surrogate of half the ratio": ("grpo.on_policy_gradient", (lambda ratio, A: -ratio * A / 2,), {}),
    "another estimate of KL": ("grpo.k3", (lambda d: -d,), {}),
    "a loss over its own length": (
        "grpo.sources_add", (lambda rows, A, mask: sum(sum(row) for row in rows) / len(rows),), {}
    ),
    "a loss without its mask": ("grpo.mask", (lambda rows, A, mask: sum(sum(row) for row in rows),), {}),
    "orientation that is always +1": ("extraction.swapping", (lambda p: sp.Integer(1),), {}),
    "orientation by the first pair": ("extraction.permuting", (lambda p: sp.sign(p[0]),), {}),
    "orientation by the last pair": ("extraction.axis_sign", (lambda p: sp.sign(p[-1]),), {}),
    "a vote that an outlier turns": ("extraction.outlier", (lambda p: sp.Integer(1),), {}),
    "a floor from below": (
        "extraction.noise_floor", (lambda v, floor: {i for i, s in enumerate(v) if s <= floor},), {}
    ),
    "any basis of a span without a gate": ("extraction.basis_matters", ("no_gate",), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATED)
def test_a_mutated_statement_is_refuted(name):
    statement, args, kwargs = MUTATED[name]
    with pytest.raises(RefutedError, match="does not hold"):
        PROOFS[statement].demonstrate(*args, **kwargs)


@pytest.mark.parametrize(
    ("statement", "kwargs"),
    [
        ("float.conservation.bfloat16", {"doublings": 0}),
        ("float.conservation_below.bfloat16", {"halvings": 1}),
        ("float.clip.bfloat16", {"most": 2.0}),
        ("float.k3.bfloat16", {"hypothesis": False}),
    ],
)
def test_a_mutated_float_lemma_is_refuted_with_values(statement, kwargs):
    pytest.importorskip("z3", reason="z3 is not installed; the extra proofs brings it")
    with pytest.raises(RefutedError, match=r"not at \{"):
        PROOFS[statement].demonstrate(**kwargs)


def test_relu_of_an_unknown_sign_is_refused_rather_than_guessed():
    with pytest.raises(ValueError, match="sign of x is not known"):
        relu(sp.Symbol("x", real=True))


def test_an_argument_without_steps_proves_nothing(monkeypatch):
    monkeypatch.setattr("invariants.proofs.registry._PROOFS", {})
    empty = proof("empty", theorem="T0", supports=(), extends="nothing", statement="nothing")(lambda: iter(()))
    assert prove(empty).verdict == "refuted"
    with pytest.raises(TypeError, match="is there already"):
        proof("empty", theorem="T0", supports=(), extends="nothing", statement="nothing")(lambda: iter(()))
    with pytest.raises(TypeError, match="needs a statement"):
        proof("silent", theorem="T0", supports=(), extends="")(lambda: iter(()))


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys):
    path = tmp_path / "proofs.json"
    assert main(["--only", "split.rescaling_adds", "--json", str(path)]) == 0
    assert "exact counterexample" in capsys.readouterr().out
    [found] = json.loads(path.read_text())["proofs"]
    assert (found["name"], found["verdict"], found["steps"]) == ("split.rescaling_adds", "proved", 2)
    assert found["by"] == f"sympy {sp.__version__}"
    assert found["seconds"] >= 0


def test_the_command_fails_when_a_proof_does(monkeypatch, capsys):
    monkeypatch.setattr(
        "invariants.proofs.__main__.prove_all",
        lambda proofs, **_: [outcome(p, "refuted", reason="a step does not hold") for p in proofs],
    )
    assert main(["--only", joint_breaks_erase_match.name]) == 1
    assert "0 of 1 proved" in capsys.readouterr().out


def test_without_the_solver_a_lemma_is_skipped_with_the_mend_and_the_command_fails(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "z3", None)
    assert main(["--only", "float.gate.bfloat16"]) == 1
    assert "pip install 'projected-grpo[proofs]'" in capsys.readouterr().out


def test_a_name_that_no_proof_has_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--only", "no.such"])
    assert caught.value.code == 2
    assert "no proof is called or begins with no.such" in capsys.readouterr().err
