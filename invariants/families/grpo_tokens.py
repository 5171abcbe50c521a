"""grpo.*: which tokens have a gradient, and what adds up: micro-batches, and the sources of completions."""

import torch
from torch import Tensor

from invariants.measurement import Measurement
from invariants.on_logits import on_logits
from invariants.registry import invariant
from invariants.trials import GRPOTrial


@invariant("grpo.accumulation", theorem="T16", capability="grpo", events=("more than one micro-batch",))
def accumulation(trial: GRPOTrial) -> Measurement | None:
    """The gradients of micro-batches add up to the gradient of the whole batch.

    Each micro-batch is some prompts with all of their completions, and knows how many prompts the step has.

    Fails when: the step depends on how many completions fit into memory at once.

    Likely cause: the loss is averaged over the micro-batch, and summed or averaged once more.
    """
    prompts = len(trial.given.rewards)
    if prompts < 2:
        return None
    summed = trial.gradient_on(trial.given, micro_batches=prompts // 2 + 1)  # of one prompt, and of two
    return on_logits(
        trial, summed - trial.gradient, 2 * trial.exact.bound, occurred={"more than one micro-batch": 1}
    )  # fmt: skip


@invariant(
    "grpo.sources_add",
    theorem="T16",
    capability="grpo",
    events=("student gradient is not zero", "teacher gradient is not zero"),
    reads="the gradients of its sources",
)
def sources_add(trial: GRPOTrial) -> Measurement | None:
    """The student's and the teacher's gradient are those of their own completions, and add up to the full gradient.

    Fails when: a source counts twice, or for the other.

    Likely cause: the gradient buffer is not cleared between the two backward passes.
    """
    sources = trial.by_source()
    if sources is None:
        return None
    student, teacher = sources["student"], sources["teacher"]
    written_by_teacher = trial.given.teacher[:, None, None]
    stray = torch.where(written_by_teacher, student, teacher)
    residual = torch.where(stray != 0, stray, student + teacher - trial.gradient)
    bound = torch.where(stray != 0, 0.0, 2 * trial.exact.bound)
    seen = {f"{name} gradient is not zero": bool(gradient.any()) for name, gradient in sources.items()}
    return on_logits(trial, residual, bound, occurred=seen)


def nothing_at(trial: GRPOTrial, positions: Tensor, event: str) -> Measurement:
    """Exact zeros at positions (B, P + T) of the logits, while others have a gradient."""
    residual = torch.where(positions[..., None], trial.gradient, 0.0)
    seen = bool(positions.any()) and bool((trial.gradient - residual).any())
    return on_logits(trial, residual, torch.zeros_like(residual), occurred={event: seen})


@invariant("grpo.prompt_tokens", theorem="T17", capability="grpo", events=("prompt before a gradient",))
def prompt_tokens(trial: GRPOTrial) -> Measurement:
    """Logits that predict a token of the prompt have a gradient of exactly zero.

    Fails when: the policy is trained to write prompts.

    Likely cause: an off-by-one where completions begin: logits at i predict token i + 1.
    """
    positions = torch.zeros_like(trial.given.tokens, dtype=torch.bool)
    positions[:, : trial.given.prompt_tokens - 1] = True
    return nothing_at(trial, positions, "prompt before a gradient")


@invariant("grpo.padding_tokens", theorem="T17", capability="grpo", events=("padding after a gradient",))
def padding_tokens(trial: GRPOTrial) -> Measurement:
    """Logits that predict what follows the end of sequence have a gradient of exactly zero.

    So have the last ones, which predict nothing that was sampled.

    Fails when: the policy is trained on padding.

    Likely cause: no mask, a mask by an id that is not the padding's, or one that counts ends of sequence.
    """
    first, mask = trial.given.prompt_tokens - 1, trial.given.mask
    positions = torch.zeros_like(trial.given.tokens, dtype=torch.bool)
    positions[:, first:-1] = ~mask
    positions[:, -1] = True
    return nothing_at(trial, positions, "padding after a gradient")


@invariant("grpo.end_token", theorem="T17", capability="grpo", events=("end of sequence that is the padding too",))
def end_token(trial: GRPOTrial) -> Measurement:
    """The end of sequence has a gradient, also where it shares its id with padding.

    Counted where the gradient due is larger than rounding may be; none may be missing.

    Fails when: a policy that must learn to stop, or not to, is never told.

    Likely cause: padding is masked by its id.
    """
    case, exact = trial.given, trial.exact
    ends = (case.completions == case.end_token) & case.mask  # (B, T)
    scored = slice(case.prompt_tokens - 1, -1)
    due = ends & (exact.gradient.abs() > exact.bound)[:, scored].any(dim=-1)
    missing = due & ~trial.gradient[:, scored].any(dim=-1)
    shared = int(due.sum()) if case.end_token == case.pad_token else 0
    where = f"{trial.case.label}, {int(missing.sum())} of {int(due.sum())} have none"
    return Measurement(float(missing.sum()), 0.0, where, {"end of sequence that is the padding too": shared})
