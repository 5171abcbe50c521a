"""adapter.*: a Linear with two vectors along its singular directions, as trained, as deployed and as it began.

y = W x + b + U diag(deployed + quarantine) Vh x
"""

import torch
from safetensors.torch import load, save
from torch import Tensor

from invariants.bounds import gamma
from invariants.measurement import Measurement, elementwise, same_bits, worst
from invariants.registry import invariant
from invariants.trials import AdapterTrial
from reference.adapter import decompose


def forward_error(trial: AdapterTrial, weight: Tensor, delta: Tensor) -> Tensor:
    """Rounding of W x + b + U diag(delta) Vh x and of (W + U diag(delta) Vh) x + b together, (batch, d_out).

    The columns of U and rows of Vh are unit vectors, so that the inner products are at most |delta|_max |x|; products
    of lengths d_in and r, an addition, and W' itself rounded once:
    gamma(2 d_in + 2 r + 8) (|W| |x| + r |delta|_max |x|_2 + |b|).
    """
    d_in = weight.shape[1]
    r = delta.numel()
    x = trial.x.double()
    size = x.abs() @ weight.double().abs().T + r * delta.double().abs().max() * x.norm(dim=-1, keepdim=True)
    if trial.bias is not None:
        size = size + trial.bias.double().abs()
    bound: Tensor = gamma(2 * d_in + 2 * r + 8, trial.dtype) * size
    return bound


@invariant("adapter.identity_at_zero", theorem="T15", capability="adapter", events=("output is not zero",))
def identity_at_zero(trial: AdapterTrial) -> Measurement:
    """With both vectors at zero the output is the base model's, bit for bit.

    Fails when: wrapping a model changes it before anything was learned.

    Likely cause: the forward multiplies U diag(S + delta) Vh out instead of adding to W x, or casts the input.
    """
    out = trial.output(trial.make(deployed=False, quarantine=False))
    return same_bits(out, trial.base(), trial.case.label, occurred={"output is not zero": bool(out.any())})


@invariant("adapter.equal_gradients", theorem="T15", capability="adapter", events=("gradient is not zero",))
def equal_gradients(trial: AdapterTrial) -> Measurement:
    """Both vectors have the same gradient, since the forward sees only their sum.

    Fails when: one of the vectors enters the forward in another way than the other.

    Likely cause: the quarantine is detached, scaled, or seen by one branch only.
    """
    module = trial.make()
    output = module.forward(trial.x.clone())
    torch.autograd.backward(output, torch.ones_like(output))
    deployed, quarantine = module.deployed.grad, module.quarantine.grad
    if deployed is None or quarantine is None:
        return Measurement(float("inf"), 0.0, f"{trial.case.label}: a vector has no gradient")
    return same_bits(deployed, quarantine, trial.case.label, occurred={"gradient is not zero": bool(deployed.any())})


@invariant("adapter.matches_reference", theorem="T15", capability="adapter", events=("vectors move the output",))
def matches_reference(trial: AdapterTrial) -> Measurement | None:
    """The output is W x + b + U diag(deployed + quarantine) Vh x, with U and Vh from a float64 decomposition.

    A singular vector of a weight that is known to u |W| is known to about d u |W|_F / gap, where gap is the distance
    to the nearest other singular value (Stewart and Sun 1990, theorem V.4.1); cases with a gap that small are left out.

    Fails when: the singular directions are not those of this weight.

    Likely cause: a cached decomposition of another weight, a decomposition in low precision, or unpaired signs.
    """
    U, S, Vh = decompose(trial.weight)
    delta = (trial.case.deployed.to(trial.dtype) + trial.case.quarantine.to(trial.dtype)).double()
    exact = trial.base().double() + (trial.x.double() @ Vh.T * delta) @ U.T
    neighbours = torch.cat([S, torch.zeros(1, dtype=S.dtype)])
    gap = float((neighbours[:-1] - neighbours[1:]).min())
    d = max(trial.weight.shape)
    turned = 4 * d * float(S.norm()) * torch.finfo(torch.float64).eps / gap
    if turned > 1e-3:
        return None
    out = trial.output(trial.make())
    learned = float(delta.abs().max()) * S.numel() * trial.x.double().norm(dim=-1, keepdim=True)
    bound = forward_error(trial, trial.weight, delta) + turned * learned
    moved = exact - trial.base().double()
    return elementwise(
        out.double() - exact,
        bound,
        trial.case.label,
        scale=moved,
        occurred={"vectors move the output": bool(moved.any())},
    )


@invariant("adapter.ablation", theorem="T15", capability="adapter", events=("quarantine moves the output",))
def ablation(trial: AdapterTrial) -> Measurement | None:
    """Ablated, the output is that of the deployed vector alone.

    Fails when: the model that is evaluated as deployed is another than the one that ships.

    Likely cause: ablation zeroes a factor whose initial value was subtracted elsewhere, or misses a module.
    """
    module = trial.make()
    if module.ablated is None:
        return None
    trained = trial.output(module)
    with module.ablated():
        out = trial.output(module)
    alone = trial.output(trial.make(quarantine=False))
    return same_bits(
        out, alone, trial.case.label, occurred={"quarantine moves the output": not torch.equal(trained, alone)}
    )


@invariant("adapter.ablation_restores", theorem="T15", capability="adapter", events=("ablation left",))
def ablation_restores(trial: AdapterTrial) -> Measurement | None:
    """Leaving an ablation, also a nested one and also by an exception, gives back output and vectors.

    Fails when: an evaluation changes the model that goes on training.

    Likely cause: values are overwritten and restored without `finally`, or a nested block restores zeros.
    """
    module = trial.make()
    if module.ablated is None:
        return None
    before, vectors = trial.output(module), (module.deployed.detach().clone(), module.quarantine.detach().clone())
    inside = []
    with module.ablated():
        once = trial.output(module)
        with module.ablated():
            inside.append((trial.output(module), once))
        inside.append((trial.output(module), once))
    try:
        with module.ablated():
            raise _LeavingError
    except _LeavingError:
        pass
    pairs = [
        *inside, (trial.output(module), before), (module.deployed.detach(), vectors[0]),
        (module.quarantine.detach(), vectors[1]),
    ]  # fmt: skip
    return worst((same_bits(a, b, trial.case.label) for a, b in pairs), occurred={"ablation left": 1})


class _LeavingError(Exception):
    """Raised inside an ablation, to leave it."""


@invariant("adapter.base_policy", theorem="T15", capability="adapter", events=("vectors move the output",))
def base_policy(trial: AdapterTrial) -> Measurement | None:
    """With the adapter switched off the output is the base model's, bit for bit: the reference policy is free.

    Fails when: the KL term is measured against something other than the model that training began from.

    Likely cause: one of the two vectors stays on, or the weight was merged.
    """
    module = trial.make()
    if module.as_base is None:
        return None
    trained = trial.output(module)
    with module.as_base():
        out = trial.output(module)
    after, base = trial.output(module), trial.base()
    moved = not torch.equal(trained, base)
    return worst([
        same_bits(out, base, trial.case.label, occurred={"vectors move the output": moved}),
        same_bits(after, trained, f"{trial.case.label}, afterwards"),
    ])  # fmt: skip


@invariant("adapter.merge", theorem="T15", capability="adapter", events=("weight merged",))
def merge(trial: AdapterTrial) -> Measurement | None:
    """The merged weight computes what the adapter computes, within rounding.

    Fails when: generation with merged weights samples from another policy than the one that is trained.

    Likely cause: merging leaves a vector out, applies one twice, or is repeated on a weight that is merged already.
    """
    module = trial.make()
    if module.merge is None or module.weight is None:
        return None
    hooked = trial.output(module)
    module.merge()
    module.merge()  # what is merged already must stay as it is
    delta = trial.case.deployed.abs() + trial.case.quarantine.abs()
    changed = not torch.equal(module.weight().detach(), trial.weight)
    return elementwise(
        trial.output(module).double() - hooked.double(), 2 * forward_error(trial, trial.weight, delta),
        trial.case.label, scale=hooked.double() - trial.base().double(), occurred={"weight merged": changed},
    )  # fmt: skip


@invariant("adapter.unmerge", theorem="T15", capability="adapter", events=("weight merged",))
def unmerge(trial: AdapterTrial) -> Measurement | None:
    """Unmerging gives the pristine weight back, bit for bit, however often it is done.

    Fails when: every merge and unmerge leaves a little of the adapter in the weight.

    Likely cause: unmerging by subtraction, which rounds (in bfloat16 it drifts visibly within 50 cycles).
    """
    module = trial.make()
    if module.merge is None or module.unmerge is None or module.weight is None:
        return None
    changed = 0
    for _ in range(5):
        module.merge()
        changed += not torch.equal(module.weight().detach(), trial.weight)
        module.unmerge()
    return same_bits(module.weight().detach(), trial.weight, trial.case.label, occurred={"weight merged": changed})


@invariant("adapter.export", theorem="T15", capability="adapter", events=("quarantine is not zero",))
def export(trial: AdapterTrial) -> Measurement | None:
    """The exported model acts as the ablated one and does not depend on the quarantine by a single bit.

    Fails when: what ships still holds what was quarantined.

    Likely cause: the running sum is merged instead of the deployed vector, or the checkpoint keeps both.
    """
    module, clean = trial.make(), trial.make(quarantine=False)
    if module.export is None or clean.export is None:
        return None
    shipped, without = module.export(), clean.export()
    nonzero = bool(module.quarantine.any())
    if sorted(shipped) != sorted(without) or "weight" not in shipped:
        return Measurement(float("inf"), 0.0, f"{trial.case.label}: exported {sorted(shipped)}")
    out = torch.nn.functional.linear(trial.x, shipped["weight"].detach(), trial.bias)
    bound = 2 * forward_error(trial, trial.weight, trial.case.deployed)
    measured = [
        elementwise(out.double() - trial.output(clean).double(), bound, trial.case.label, scale=out),
        *(same_bits(shipped[name].detach(), without[name].detach(), f"{trial.case.label}, {name}") for name in shipped),
    ]
    return worst(measured, occurred={"quarantine is not zero": nonzero})


@invariant(
    "adapter.saves", theorem="T14, T15", capability="adapter", events=("tensors stored",),
    reads="what it stores: give it an export or a checkpoint",
)  # fmt: skip
def saves(trial: AdapterTrial) -> Measurement | None:
    """What is exported and checkpointed can be stored by safetensors, and reads back bit for bit.

    Fails when: a run trains to its end and cannot be saved, or not as what it is.

    Likely cause: a factor of a decomposition is not contiguous (U of an SVD is stored by columns), or two names share
    memory.
    """
    module = trial.make()
    measured = []
    for kind, stored in (("export", module.export), ("checkpoint", module.checkpoint)):
        if stored is None:
            continue
        tensors, where = dict(stored()), f"{trial.case.label}, {kind}"
        try:
            read = load(save(tensors))
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split()).partition(". ")[0]
            measured.append(Measurement(float("inf"), 0.0, f"{where}: {reason}", {"tensors stored": len(tensors)}))
            continue
        for name, tensor in tensors.items():
            same = same_bits(read[name], tensor.detach(), f"{where}, {name}", occurred={"tensors stored": 1})
            measured.append(same)
    return worst(measured) if measured else None


@invariant("adapter.frozen_basis", theorem="T15", capability="adapter", events=("backward twice",))
def frozen_basis(trial: AdapterTrial) -> Measurement:
    """Two forward and backward passes in a row give the same gradients, and the weight takes none: the basis is frozen.

    Fails when: the second backward raises or adds to the first, or the weight would be trained.

    Likely cause: the decomposition was computed under autograd.
    """
    module = trial.make()
    gradients: list[Tensor] = []
    for _ in range(2):
        module.deployed.grad = module.quarantine.grad = None
        output = module.forward(trial.x.clone())
        try:
            torch.autograd.backward(output, torch.ones_like(output))
        except RuntimeError as error:
            if not gradients:
                raise
            where = f"{trial.case.label}: the second backward raised {str(error).partition('.')[0]}"
            return Measurement(float("inf"), 0.0, where, {"backward twice": 1})
        assert module.deployed.grad is not None
        gradients.append(module.deployed.grad.clone())
    if module.weight is not None and module.weight().requires_grad:
        return Measurement(float("inf"), 0.0, f"{trial.case.label}: the weight is trainable", {"backward twice": 1})
    return same_bits(gradients[0], gradients[1], trial.case.label, occurred={"backward twice": 1})
