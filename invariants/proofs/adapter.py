"""T15: a Linear with two vectors along its singular directions, in exact arithmetic."""

from collections.abc import Iterator
from typing import Any

import sympy as sp

from invariants.proofs.algebra import Expr, Matrix, differ, is_true, same
from invariants.proofs.registry import Step, proof

ENTRYWISE = "The forward is a sum over singular directions, and each occurs here; d_in, d_out and r only lengthen sums."
W, U, VH = (sp.Matrix(2, 2, sp.symbols(f"{name}:4", real=True)) for name in ("W", "U", "H"))
BIAS, INPUT, DEPLOYED, QUARANTINE = (sp.Matrix(sp.symbols(f"{name}:2", real=True)) for name in ("b", "x", "d", "q"))
ZERO = sp.zeros(2, 1)


def forward(deployed: Matrix, quarantine: Matrix, *, U: Matrix = U, Vh: Matrix = VH, weight: Matrix = W) -> Matrix:
    """W x + b + U diag(deployed + quarantine) Vh x."""
    return weight * INPUT + BIAS + U * sp.diag(*(deployed + quarantine)) * Vh * INPUT


def merged(delta: Matrix) -> Matrix:
    """W + U diag(delta) Vh."""
    return W + U * sp.diag(*delta) * VH


@proof(
    "adapter.zero_vectors", theorem="T15", supports=("adapter.identity_at_zero", "adapter.base_policy"),
    extends=ENTRYWISE,
)  # fmt: skip
def zero_vectors(forward: Any = forward) -> Iterator[Step]:
    """With both vectors at zero the output is W x + b, so that zeroed vectors are the reference policy."""
    yield same(forward(ZERO, ZERO), W * INPUT + BIAS, "the output")


@proof("adapter.equal_gradients", theorem="T15", supports=("adapter.equal_gradients",), extends=ENTRYWISE)
def equal_gradients(forward: Any = forward) -> Iterator[Step]:
    """Any loss of the output has the same derivative in deployed and in quarantine, by the chain rule."""
    loss = sp.Function("loss")(*forward(DEPLOYED, QUARANTINE))
    for d, q in zip(DEPLOYED, QUARANTINE, strict=True):
        a, b = (sp.diff(loss, v).doit() for v in (d, q))
        yield is_true(sp.simplify(a - b) == 0, f"the derivative in {d} and in {q}")
        yield is_true(a != 0, f"the derivative in {d} is not zero")


@proof(
    "adapter.sum_is_seen", theorem="T15", supports=("adapter.equal_gradients", "adapter.ablation"), extends=ENTRYWISE
)
def sum_is_seen(forward: Any = forward) -> Iterator[Step]:
    """The output depends on deployed + quarantine only; ablated, it is that of deployed alone."""
    yield same(forward(DEPLOYED, QUARANTINE), forward(DEPLOYED + QUARANTINE, ZERO), "the sum")
    yield same(forward(DEPLOYED, QUARANTINE).subs(dict.fromkeys(QUARANTINE, 0)), forward(DEPLOYED, ZERO), "ablated")


@proof("adapter.merge", theorem="T15", supports=("adapter.merge", "adapter.unmerge"), extends=ENTRYWISE)
def merge(merged: Any = merged) -> Iterator[Step]:
    """The merged weight W + U diag(delta) Vh computes what the adapter computes; minus what was added it is W."""
    delta = DEPLOYED + QUARANTINE
    yield same(merged(delta) * INPUT + BIAS, forward(DEPLOYED, QUARANTINE), "the output")
    yield same(merged(delta) - U * sp.diag(*delta) * VH, W, "unmerged")


@proof("adapter.export", theorem="T15", supports=("adapter.export",), extends=ENTRYWISE)
def export(shipped: Any = DEPLOYED) -> Iterator[Step]:
    """What ships, W + U diag(deployed) Vh, acts as the ablated model and has no derivative in the quarantine."""
    weight = merged(shipped)
    yield same(weight * INPUT + BIAS, forward(DEPLOYED, ZERO), "acts as ablated")
    for q in QUARANTINE:
        yield same(sp.diff(weight, q), sp.zeros(2, 2), f"derivative in {q}")


@proof("adapter.paired_signs", theorem="T15", supports=("adapter.matches_reference",), extends=ENTRYWISE)
def paired_signs(second: Expr = -1) -> Iterator[Step]:
    """A singular pair's sign is free: turning a column of U and the row of Vh together changes nothing."""
    turn, back = sp.diag(-1, 1), sp.diag(second, 1)
    yield same(forward(DEPLOYED, QUARANTINE, U=U * turn, Vh=back * VH), forward(DEPLOYED, QUARANTINE), "both turned")


@proof(
    "adapter.one_sign_matters", theorem="T15", supports=("adapter.matches_reference",), kind="counterexample",
    extends="One example is enough.",
)  # fmt: skip
def one_sign_matters() -> Iterator[Step]:
    """Turning only one of a singular pair changes the output."""
    change = forward(DEPLOYED, QUARANTINE, U=U * sp.diag(-1, 1)) - forward(DEPLOYED, QUARANTINE)
    yield differ(change.subs(dict.fromkeys(change.free_symbols, 1))[0], 0, "the output")
