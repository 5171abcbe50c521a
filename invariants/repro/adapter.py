"""adapter.*, for scripts. The outputs are those of the subject's adapted Linear, in the order of the check.

y = W x + b + U diag(deployed + quarantine) Vh x
"""

from typing import Any

import torch
from torch import Tensor

from invariants.repro.snippet import IMPOSSIBLE, Residuals, snippet

Outputs = dict[str, Tensor]
BITS = "0: the same bits"
PRODUCTS = "gamma(2 d_in + 2 r + 8) (|W| |x| + r |delta| |x| + |b|)"

IMPOSSIBLE["adapter.saves"] = "it is safetensors that refuses the tensors, and a script has torch alone"


@snippet("adapter.identity_at_zero", allows=BITS)
def identity_at_zero(outputs: Outputs, W: Tensor, b: Tensor | None, x: Tensor) -> Residuals:
    """With both vectors at zero the output is the base model's."""
    [out] = outputs.values()
    return {"output - (W x + b)": out.double() - torch.nn.functional.linear(x, W, b).double()}


@snippet("adapter.equal_gradients", allows=BITS)
def equal_gradients(gradients: Outputs) -> Residuals:
    """Both vectors have the same gradient."""
    if len(gradients) < 2:
        return {f"inf: only {[*gradients]} there": torch.tensor(float("inf"))}
    deployed, quarantine = gradients.values()
    return {"deployed's gradient - quarantine's": deployed.double() - quarantine.double()}


@snippet("adapter.matches_reference", allows=f"{PRODUCTS}, and what the decomposition itself may turn")
def matches_reference(
    outputs: Outputs, W: Tensor, b: Tensor | None, x: Tensor, deployed: Tensor, quarantine: Tensor
) -> Residuals:
    """The output is W x + b + U diag(deployed + quarantine) Vh x."""
    [out] = outputs.values()
    U, _, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    exact = torch.nn.functional.linear(x, W, b).double() + (x.double() @ Vh.T * (deployed + quarantine).double()) @ U.T
    return {"output - exact": out.double() - exact}


@snippet("adapter.ablation", allows=BITS)
def ablation(outputs: Outputs) -> Residuals:
    """Ablated, the output is that of the deployed vector alone."""
    _, ablated, alone = outputs.values()
    return {"output while ablated - output without a quarantine": ablated.double() - alone.double()}


@snippet("adapter.ablation_restores", allows=BITS)
def ablation_restores(outputs: Outputs) -> Residuals:
    """Leaving an ablation gives back what was there before."""
    before, once, nested, back_in, after = outputs.values()
    return {
        "output in a nested ablation - in one": nested.double() - once.double(),
        "output after a nested ablation - before it": back_in.double() - once.double(),
        "output after the ablation - before it": after.double() - before.double(),
    }


@snippet("adapter.base_policy", allows=BITS)
def base_policy(outputs: Outputs, W: Tensor, b: Tensor | None, x: Tensor) -> Residuals:
    """Switched off, the adapter computes what the base model does; afterwards what it did before."""
    trained, off, after = outputs.values()
    return {
        "output while switched off - (W x + b)": off.double() - torch.nn.functional.linear(x, W, b).double(),
        "output afterwards - before": after.double() - trained.double(),
    }


@snippet("adapter.merge", allows=f"twice {PRODUCTS}")
def merge(outputs: Outputs) -> Residuals:
    """Merged, the output is what it was, within rounding."""
    hooked, merged = outputs.values()
    return {"output while merged - output before": merged.double() - hooked.double()}


@snippet("adapter.unmerge", allows=BITS)
def unmerge(weights: Outputs, W: Tensor) -> Residuals:
    """Unmerging gives the weight back."""
    *_, last = weights.values()
    return {"weight after five cycles - W": last.double() - W.double()}


@snippet("adapter.export", allows=f"twice {PRODUCTS}; by the quarantine: 0")
def export(outputs: Outputs, exports: list[Any], b: Tensor | None, x: Tensor) -> Residuals:
    """What ships computes what the ablated model does, and is the same without a quarantine."""
    shipped, without = exports
    if sorted(shipped) != sorted(without) or "weight" not in shipped:
        return {f"inf: exported {sorted(shipped)}": torch.tensor(float("inf"))}
    [ablated] = outputs.values()
    compared = {"output of what ships - ablated": torch.nn.functional.linear(x, shipped["weight"], b) - ablated}
    for name in shipped:
        compared[f"{name} shipped - without a quarantine"] = shipped[name].double() - without[name].double()
    return compared


@snippet("adapter.frozen_basis", allows=BITS)
def frozen_basis(gradients: Outputs, trainable: bool, reported: str) -> Residuals:
    """A second backward pass gives what the first gave, and the weight takes no gradient."""
    of_deployed = [g for name, g in gradients.items() if "deployed" in name]
    if "the second backward raised" in reported or len(of_deployed) < 2:
        return {"inf: the second backward raised": torch.tensor(float("inf"))}
    if trainable:
        return {"inf: the weight is trainable": torch.tensor(float("inf"))}
    return {"gradient of the second backward - of the first": (of_deployed[1] - of_deployed[0]).double()}
