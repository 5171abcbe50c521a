"""The basis of a run: extracted from contrastive pairs, measured on pairs that it has not seen, refreshed if asked.

Controls come from the same extraction, see `projected_grpo.training.controls`.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from projected_grpo.adapter import fingerprints
from projected_grpo.basis import Basis
from projected_grpo.cache import cache_folder, digest_of, kept
from projected_grpo.extraction import extract_basis, isolated_gradient, overlap
from projected_grpo.training.config import BasisConfig
from projected_grpo.training.controls import shown, turned
from projected_grpo.training.errors import PairsError
from projected_grpo.training.inputs import versions, weights_digest
from projected_grpo.training.learning import mean_nll
from projected_grpo.training.policy import Policy
from projected_grpo.training.pool import read
from projected_grpo.training.streams import stream
from projected_grpo.training.task import Task, TokenPair


@dataclass(frozen=True)
class Separation:
    """How V tells hacks from clean completions on pairs that it was not extracted from.

    With d the difference of a pair's gradients: `right` is the share of pairs with Σ V d > 0, over all modules and
    axes; `captured` the share of |d|² that lies along V, on average.
    """

    pairs: int
    right: float
    captured: float


@dataclass(frozen=True)
class Extracted:
    """A basis and what it separates; None where no pair was held out."""

    basis: Basis
    separation: Separation | None


def extract(
    policy: Policy, seen: Sequence[TokenPair], held_out: Sequence[TokenPair], config: BasisConfig, *, seed: int
) -> Extracted:
    """V of the model as deployed, from the pairs seen, or the control that the configuration names."""
    return _measured(policy, _extracted(policy, shown(seen, config.basis, seed=seed), config), held_out, config, seed)


def first_basis(
    policy: Policy, seen: Sequence[TokenPair], held_out: Sequence[TokenPair], config: BasisConfig, *, seed: int
) -> Extracted:
    """The V that a run begins with: one that was saved, or else extracted, or kept in a cache from when it was.

    Raises StaleBasisError for a saved one that belongs to other weights, and what Basis.load raises.
    """
    if config.basis_from is None:
        basis = _kept(policy, shown(seen, config.basis, seed=seed), config)
        return _measured(policy, basis, held_out, config, seed)
    saved = Basis.load(config.basis_from)
    saved.check_fingerprints(fingerprints(policy.model))
    vector = next(iter(policy.vectors.values())).deployed
    return _measured(policy, saved.to(dtype=vector.dtype, device=vector.device), held_out, config, seed)


def placeholder(policy: Policy) -> Basis:
    """A basis that nothing reads: one axis of one module, where a run has none or is about to load its own."""
    name, pair = next(iter(policy.vectors.items()))
    row = torch.zeros(1, pair.deployed.numel(), dtype=pair.deployed.dtype, device=pair.deployed.device)
    row[0, 0] = 1
    return Basis({name: row})


def separation(policy: Policy, basis: Basis, held_out: Sequence[TokenPair]) -> Separation:
    """What a basis separates of these pairs, with the quarantine ablated."""
    vectors = {name: policy.vectors[name].deployed for name in basis}
    right, captured = 0, 0.0
    with policy.viewed("deployed"):
        for pair in held_out:
            hack, clean = (isolated_gradient(loss, vectors) for loss in _losses(policy, pair))
            d = {name: hack[name].double() - clean[name].double() for name in vectors}
            c = torch.cat([basis[name].double() @ d[name] for name in vectors])
            right += float(c.sum()) > 0
            captured += float(c.square().sum() / sum(x.square().sum() for x in d.values()))
    return Separation(len(held_out), right / len(held_out), captured / len(held_out))


def chosen_pairs(task: Task, config: BasisConfig, *, seed: int) -> tuple[list[TokenPair], list[TokenPair]]:
    """The pairs that V sees, and others about prompts that none of those is about.

    Both are as many as the configuration says, or as there are; no two pairs are equal. For a V that was saved nobody
    knows what it has seen, so no pair is held out.

    Raises PairsError if there is none.
    """
    draw = stream(seed, "pairs")
    total = 2 * math.ceil(config.pairs / (1 - config.held_out))  # prompts come more than once
    pairs = list({(p.prompt, p.hack, p.clean): p for p in _candidates(task, config, total, draw)}.values())
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    share = 0 if config.basis_from is not None else round(len(prompts) * config.held_out)
    apart = set(prompts[len(prompts) - share :])
    seen = [pair for pair in pairs if pair.prompt not in apart][: config.pairs]
    if not seen:
        raise PairsError("There is no contrastive pair for V to see; bring some, or hold out fewer.")
    held_out = [pair for pair in pairs if pair.prompt in apart]
    return seen, held_out[: round(len(seen) * config.held_out / (1 - config.held_out))]


def _candidates(task: Task, config: BasisConfig, count: int, draw: torch.Generator) -> list[TokenPair]:
    """Pairs in random order, of the modes that the detector knows."""
    if config.pairs_from is None:
        return task.pairs(count, config.detector_modes, draw)
    if config.pairs_from.name.endswith(".gz"):
        return read(config.pairs_from).pairs(count, config.detector_modes, draw)
    pairs = [p for p in task.read_pairs(config.pairs_from) if p.mode in (config.detector_modes or (p.mode,))]
    return [pairs[at] for at in torch.randperm(len(pairs), generator=draw).tolist()]


def mean_overlap(new: Basis, old: Basis) -> float:
    """The mean over modules of what two bases share; a module in which only one of them has rows shares nothing."""
    shared = overlap(new, old)
    either = [name for name in old if old.k[name] or new.k[name]]
    return sum(shared.values()) / len(either) if either else 0.0


def same_way(new: Basis, old: Basis) -> float:
    """Whether axes that two bases share point the same way: Σ c |c| / Σ c² over all cosines c of their rows."""
    cosines = torch.cat([(V.double() @ old[name].double().T).flatten() for name, V in new.items()])
    total = cosines.square().sum()
    return float((cosines * cosines.abs()).sum() / total) if float(total) > 0 else 0.0


def _extracted(policy: Policy, seen: Sequence[TokenPair], config: BasisConfig) -> Basis:
    return extract_basis(
        policy.model, [_losses(policy, pair) for pair in seen], config.k,
        relative_floor=config.relative_floor, global_floor=config.global_floor,
    )  # fmt: skip


def _kept(policy: Policy, seen: Sequence[TokenPair], config: BasisConfig) -> Basis:
    """As `_extracted`, or as it came out when it was extracted from the same model and pairs before."""
    if cache_folder() is None:
        return _extracted(policy, seen, config)
    decides = {
        "weights": weights_digest(policy), "code": versions(), "ends": policy.end_ids,
        "machine": (policy.device.type, torch.get_num_threads()),
        "architecture": policy.model.get_base_model().config.to_dict(),
        "vectors": digest_of({name: pair.deployed.detach() for name, pair in policy.vectors.items()}),
        "coordinates": digest_of({n: b for n, b in policy.model.named_buffers() if n.endswith((".U", ".Vh"))}),
        "pairs": [(pair.prompt, pair.hack, pair.clean) for pair in seen],
        "axes": (config.k, config.relative_floor, config.global_floor),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
    rows = kept("basis-1", key, lambda: _extracted(policy, seen, config))
    in_order = {name: rows[name].to(policy.device) for name in policy.vectors if name in rows}
    return Basis(in_order, fingerprints=fingerprints(policy.model))


def _measured(policy: Policy, basis: Basis, held_out: Sequence[TokenPair], config: BasisConfig, seed: int) -> Extracted:
    """The basis, or its control, with what it separates of the held-out pairs."""
    used = turned(basis, config.basis, seed=seed)
    return Extracted(used, separation(policy, used, held_out) if held_out else None)


def _losses(policy: Policy, pair: TokenPair) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    hack, clean = (partial(mean_nll, policy, pair.prompt, completion) for completion in (pair.hack, pair.clean))
    return hack, clean
