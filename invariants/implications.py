"""Which invariants fall with which: when one cause trips several, a report shows the root and folds the rest under it.

An edge from a root to a consequence says that whatever violates the root usually violates the consequence too, and
why. The reasons are mathematics where there is any (a theorem, or a contrapositive of one), and otherwise the root's
likely cause. The edges have no cycles; what every fault of the museum trips is held against them.
"""

from collections.abc import Collection, Mapping

from invariants.registry import all_invariants

ANOTHER_SPLIT = "the specification keeps it, so a split that does not is another split"
ANOTHER_RUN = "the specification keeps it wherever it is claimed, so a run that does not is another run"
OTHER_AXES = "the axes are compared with those of the exact differences, which keep it"
OTHER_LOSS = "the gradient is compared with the one that is due, which keeps it"
NEVER_TWICE = "two runs are compared, and no two runs of this loop are alike"

IMPLIES: Mapping[str, Mapping[str, str]] = {
    "split.conservation": {"split.matches_reference": ANOTHER_SPLIT},
    "split.pythagoras": {
        "split.one_sided": "with removed = V^T a, kept @ removed = (c - a) @ a is 0 for the stated coefficients a, so "
        "these are others, and so is V kept = c - a",
        "split.null_baseline": "|removed|^2 is g @ removed only for an orthogonal projection, so the share is another",
        "split.matches_reference": ANOTHER_SPLIT,
    },
    "split.one_sided": {"split.matches_reference": ANOTHER_SPLIT},
    "split.idempotence": {
        "split.one_sided": "what a second pass finds is a hack-ward component that the first has left",
        "split.null_baseline": "what a second pass removes is missing from the share of the first",
        "split.matches_reference": ANOTHER_SPLIT,
    },
    "split.homogeneity": {
        "split.one_sided": "the stated remainder grows with the gradient, and this one does not",
        "split.matches_reference": ANOTHER_SPLIT,
    },
    "split.additivity": {
        "split.one_sided": "a linear gate leaves V kept = 0, which is linear too",
        "split.null_baseline": "a rectified gate removes half of what a linear one removes of noise",
        "split.matches_reference": ANOTHER_SPLIT,
    },
    "split.null_baseline": {"split.matches_reference": ANOTHER_SPLIT},
    "split.span": {
        "split.pythagoras": "kept is only orthogonal to the span of V, and removed has a part outside of it",
        "split.matches_reference": ANOTHER_SPLIT,
    },
    "split.empty_basis": {
        "split.span": "the span of an empty basis is {0}, and something outside of it is removed",
        "split.zero_rows": "nothing but zero rows spans as little as no row, and the two are treated differently",
        "split.matches_reference": ANOTHER_SPLIT,
    },
    "split.zero_rows": {
        "split.pythagoras": "some bases have a zero row, and there the split is no projection",
        "split.one_sided": "some bases have a zero row, and there another remainder is left",
        "split.idempotence": "some bases have a zero row, and there a component is left",
        "split.matches_reference": ANOTHER_SPLIT,
    },
    "split.preserves_magnitude": {"split.matches_reference": ANOTHER_SPLIT},
    "split.zero_gradient": {
        "split.empty_basis": "without a basis a zero gradient must be kept as it is",
        "split.purity": "NaN, the usual answer to zero, does not equal itself",
    },
    "clip.covers_both": {
        "clip.logged_norms": "a log that is true shows a norm above the limit",
        "optimizer.keeps_sum": "vanilla is held to the limit, and the two parts together are not",
        "optimizer.matches_reference": ANOTHER_RUN,
    },
    "clip.reaches_limit": {"optimizer.matches_reference": ANOTHER_RUN},
    "clip.common_factor": {
        "optimizer.keeps_sum": "the parts add up only if one factor scales them both (T9)",
        "optimizer.empty_module": "a module without a basis is scaled by another factor than under vanilla",
        "optimizer.matches_reference": ANOTHER_RUN,
    },
    "clip.takes_effect": {
        "clip.covers_both": "what a limit does not change passes it unlimited",
        "optimizer.matches_reference": ANOTHER_RUN,
    },
    "clip.inactive_below": {"optimizer.matches_reference": ANOTHER_RUN},
    "clip.vanilla_norm": {
        "clip.covers_both": "parts longer than the gradient exceed a limit that the gradient was held to",
        "clip.reaches_limit": "parts shorter than the gradient stay below a limit that the gradient was held to",
        "optimizer.matches_reference": ANOTHER_RUN,
    },
    "optimizer.keeps_sum": {"optimizer.matches_reference": ANOTHER_RUN},
    "optimizer.erase_match": {"optimizer.matches_reference": ANOTHER_RUN},
    "optimizer.span": {
        "optimizer.keeps_sum": "a linear optimizer stays in the span (T11), so this one is not linear, and only linear "
        "ones keep the sum (T9)",
        "optimizer.update_leak": "the preconditioner that turns the quarantine turns the kept gradient too",
        "optimizer.displacement_leak": "updates that are turned hack-ward add up",
        "optimizer.refresh_update_leak": "what turns gradients turns them after a refresh too",
        "optimizer.noise_rectified": "a preconditioner divides noise by its size, so that it drifts at another rate",
        "optimizer.matches_reference": ANOTHER_RUN,
    },
    "optimizer.update_leak": {"optimizer.matches_reference": ANOTHER_RUN},
    "optimizer.noise_drift": {"optimizer.matches_reference": ANOTHER_RUN},
    "optimizer.noise_rectified": {"optimizer.matches_reference": ANOTHER_RUN},
    "optimizer.noise_total": {"optimizer.matches_reference": ANOTHER_RUN},
    "optimizer.displacement_leak": {
        "optimizer.update_leak": "a sum of updates is hack-ward only if one of them is",
        "optimizer.matches_reference": ANOTHER_RUN,
    },
    "optimizer.deterministic": {
        "optimizer.nonfinite_gradient": NEVER_TWICE,
        "optimizer.per_module": NEVER_TWICE,
        "optimizer.matches_reference": ANOTHER_RUN,
    },
    "optimizer.per_module": {"optimizer.matches_reference": ANOTHER_RUN},
    "optimizer.empty_module": {
        "clip.reaches_limit": "what is not fed is missing from the norm",
        "clip.vanilla_norm": "what is not fed is missing from the norm",
        "optimizer.keeps_sum": "what a module without a basis loses, the sum loses",
        "optimizer.matches_reference": ANOTHER_RUN,
    },
    "adapter.identity_at_zero": {
        "adapter.base_policy": "switched off, the adapter computes what it computes with both vectors at zero",
    },
    "grpo.advantage": {
        "grpo.on_policy_gradient": "every token is pushed by its advantage",
        "grpo.clipped_surrogate": "every token is pushed by its advantage",
    },
    "grpo.advantage_scale": {"grpo.advantage": "R - mean(R) grows with the rewards"},
    "grpo.shift": {"grpo.advantage": "R - mean(R) does not change when all rewards are shifted"},
    "grpo.permutation": {"grpo.advantage": "the mean knows no places"},
    "grpo.on_policy_gradient": {
        "grpo.clipped_surrogate": "where nothing is clipped the surrogate has the policy gradient, times the ratio",
    },
    "grpo.k3": {"grpo.on_policy_gradient": "beside the policy gradient stands that of the KL term"},
    "grpo.prompt_tokens": {"grpo.on_policy_gradient": OTHER_LOSS},
    "grpo.padding_tokens": {"grpo.on_policy_gradient": OTHER_LOSS},
    "grpo.end_token": {"grpo.on_policy_gradient": OTHER_LOSS},
    "training.reproducible": dict.fromkeys(
        (
            "training.oracle_blind",
            "training.evaluation_neutral",
            "training.logging_neutral",
            "training.measuring_neutral",
            "training.resumes",
        ),
        NEVER_TWICE,
    ),
    "training.zero_variance": {"training.step_gradient": "what is no number is not the gradient that is due"},
    "grading.none_has_no_flaw": {"grading.diagonal": "a flaw that fires under none fires under two modes"},
    "extraction.run_span": dict.fromkeys(
        ("extraction.run_orientation", "extraction.run_floor", "extraction.run_separation"),
        "axes of other gradients than the pairs' have their votes, their singular values and their shares",
    ),
    "extraction.orthonormal": {"extraction.isolation": OTHER_AXES},
    "extraction.span": {"extraction.isolation": OTHER_AXES},
    "extraction.orientation": {"extraction.isolation": OTHER_AXES},
    "extraction.tie": {"extraction.isolation": OTHER_AXES},
    "extraction.permutation": {
        "extraction.orientation": "a majority knows no order, so in some order the sign is not the majority's",
        "extraction.tie": "a sum knows no order, so in some order the sign is not the sum's",
        "extraction.isolation": OTHER_AXES,
    },
    "extraction.antisymmetry": {
        "extraction.orientation": "a majority changes sides with the pairs, so one of the two signs is not its",
        "extraction.tie": "a sum changes its sign with the pairs, so one of the two signs is not its",
        "extraction.isolation": OTHER_AXES,
    },
}
"""root -> consequence -> why."""


def consequences(root: str, among: Collection[str]) -> set[str]:
    """What falls with `root` among these ids, directly or by way of others of them; without the root itself."""
    found: set[str] = set()
    front = {root}
    while front:
        front = {c for id in front for c in IMPLIES.get(id, ()) if c in among} - found
        found |= front
    return found - {root}


def because(root: str, consequence: str, among: Collection[str]) -> str | None:
    """Why `consequence` falls with `root`, by the fewest steps over ids of `among`; None if it doesn't."""
    reasons = {root: ""}
    while consequence not in reasons:
        steps = {
            id: f"{before}; {reason}" if before else reason
            for known, before in reasons.items()
            for id, reason in IMPLIES.get(known, {}).items()
            if id in among and id not in reasons
        }
        if not steps:
            return None
        reasons |= steps
    return reasons[consequence]


def in_order(ids: Collection[str]) -> list[str]:
    """Each id once, in the order of the registry; what it does not know comes last, by name."""
    position = {invariant.id: n for n, invariant in enumerate(all_invariants())}
    return sorted(set(ids), key=lambda id: (position.get(id, len(position)), id))


def roots(red: Collection[str]) -> dict[str, list[str]]:
    """Partitions violated invariants: each root with those that are folded under it, in the order of the registry.

    What falls with several roots goes under the first. Should implications ever run in a circle of which all are red
    and nothing outside implies one, its first is the root.
    """
    ordered = in_order(red)
    falls = {id: consequences(id, ordered) for id in ordered}

    def is_root(id: str) -> bool:
        above = [other for other in ordered if id in falls[other]]
        return all(other in falls[id] and ordered.index(id) < ordered.index(other) for other in above)

    folded: dict[str, list[str]] = {id: [] for id in ordered if is_root(id)}
    for id in ordered:
        if id not in folded:
            folded[next(root for root in folded if id in falls[root])].append(id)
    return folded
