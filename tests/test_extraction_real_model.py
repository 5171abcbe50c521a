"""The basis of the testbed's model, against gradients that are taken on another way: all pairs in one batch."""

from dataclasses import replace

import pytest
import torch
from training_toys import toy

from projected_grpo.adapter import row_gradients
from projected_grpo.environment import Mode
from projected_grpo.training.controls import shown
from projected_grpo.training.errors import PairsError
from projected_grpo.training.evaluation import off_the_axes
from projected_grpo.training.hack_basis import chosen_pairs, extract, separation
from projected_grpo.training.setting import make_policy_and_task

K = 4


@pytest.fixture(scope="module")
def setting():
    config = toy(model={"dtype": "float64"}, basis={"pairs": 12, "k": K, "held_out": 0.5})
    policy, task = make_policy_and_task(config)
    task.close()
    seen, held_out = chosen_pairs(task, config.basis, seed=0)
    return policy, config.basis, seen, held_out


@pytest.fixture(autouse=True)
def quarantine(setting):
    """Alive, so that an extraction that forgets to ablate it is seen; the deployed vectors moved too."""
    policy = setting[0]
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for pair in policy.vectors.values():
            for vector in pair:
                vector.copy_(torch.randn(vector.shape, generator=draw, dtype=vector.dtype) * 0.05)


def differences(policy, pairs, view="deployed"):
    """D of every module, (pairs, r), from two backward passes over all pairs."""
    sides = []
    for completions in ([p.hack for p in pairs], [p.clean for p in pairs]):
        batch = policy.completed([p.prompt for p in pairs], completions)
        with policy.viewed(view), row_gradients(policy.model) as rows:
            nll = -(policy.log_probs(batch) * batch.mask).sum(dim=1) / batch.mask.sum(dim=1)
            torch.autograd.backward(nll.sum())
            sides.append(rows.take())
    for pair in policy.vectors.values():
        pair.deployed.grad = pair.quarantine.grad = None
    return {name: sides[0][name] - sides[1][name] for name in sides[0]}


def aligned(V, D):
    """How much of each of V's rows lies in the span of D's first rows of the decomposition, and the votes."""
    Vh = torch.linalg.svd(D, full_matrices=False).Vh
    return (V @ Vh[: len(V)].T).norm(dim=1), ((D @ V.T).sign().sum(dim=0))


def test_axes_are_the_principal_ones_of_isolated_gradients_and_the_majority_is_hackward(setting):
    policy, config, seen, _ = setting
    basis = extract(policy, seen, (), config, seed=0).basis
    D = differences(policy, seen)
    assert set(basis) == set(D)
    assert len(basis) == 14
    for name, V in basis.items():
        inside, votes = aligned(V, D[name])
        assert len(V) == K
        assert float((V @ V.T - torch.eye(K, dtype=V.dtype)).abs().max()) <= 1e-12
        # RMSNorm's inside is float32 whatever the model is, so the two ways agree to that.
        assert float((inside - 1).abs().max()) <= 1e-3
        assert bool((votes >= 0).all())


def test_a_live_quarantine_would_have_turned_them(setting):
    policy, config, seen, _ = setting
    basis = extract(policy, seen, (), config, seed=0).basis
    live = differences(policy, seen, view="trained")
    assert min(float(aligned(V, live[name])[0].min()) for name, V in basis.items()) < 0.99


def test_swapped_pairs_flip_every_axis_and_their_order_means_nothing(setting):
    policy, config, seen, _ = setting
    basis = extract(policy, seen, (), config, seed=0).basis
    swapped = [replace(pair, hack=pair.clean, clean=pair.hack) for pair in seen]
    flipped = extract(policy, swapped, (), config, seed=0).basis
    assert all(float((flipped[name] + V).abs().max()) <= 1e-9 for name, V in basis.items())
    turned = extract(policy, seen[::-1], (), config, seed=0).basis
    assert all(float((turned[name] - V).abs().max()) <= 1e-6 for name, V in basis.items())


def test_controls_have_the_same_axes_by_number_and_separate_nothing_or_the_contrary(setting):
    policy, config, seen, held_out = setting
    found = {
        name: extract(policy, seen, held_out, replace(config, basis=name), seed=0)
        for name in ("hack", "random", "flipped")
    }
    assert found["hack"].basis.k == found["random"].basis.k == found["flipped"].basis.k
    assert all(torch.equal(found["flipped"].basis[name], -V) for name, V in found["hack"].basis.items())
    hack, random, flipped = (found[name].separation for name in ("hack", "random", "flipped"))
    assert hack.pairs == len(held_out) == 12
    assert hack.right >= 0.9
    assert flipped.right <= 0.1
    assert hack.captured > 3 * random.captured


def test_nothing_is_left_behind(setting):
    policy, config, seen, held_out = setting
    before = {name: [v.detach().clone() for v in pair] for name, pair in policy.vectors.items()}
    basis = extract(policy, seen, held_out, config, seed=0).basis
    separation(policy, basis, held_out)
    for name, pair in policy.vectors.items():
        assert all(torch.equal(v, kept) for v, kept in zip(pair, before[name], strict=True))
        assert all(v.grad is None for v in pair)
        assert not basis[name].requires_grad
    assert basis.fingerprints.keys() == policy.vectors.keys()


def test_a_weak_detector_sees_the_modes_that_it_is_given():
    modes = (Mode.RUN_TESTS, Mode.SENTINEL)
    config = toy(basis={"detector_modes": modes})
    _, task = make_policy_and_task(config)
    task.close()
    seen, held_out = chosen_pairs(task, config.basis, seed=0)
    assert {pair.mode for pair in [*seen, *held_out]} == set(modes)


def test_shuffled_pairs_are_the_same_completions_and_clean_ones_have_no_hack(setting):
    _, _, seen, _ = setting
    dealt, clean = shown(seen, "shuffled", seed=0), shown(seen, "clean", seed=0)
    assert shown(seen, "hack", seed=0) == shown(seen, "random", seed=0) == list(seen)
    assert dealt == shown(seen, "shuffled", seed=0) != shown(seen, "shuffled", seed=1)
    assert [p.prompt for p in dealt] == [p.prompt for p in clean] == [p.prompt for p in seen]
    both = sorted(completion for pair in seen for completion in (pair.hack, pair.clean))
    assert sorted(completion for pair in dealt for completion in (pair.hack, pair.clean)) == both
    assert [p.clean for p in clean] == [p.clean for p in seen]
    assert {p.hack for p in clean} <= {p.clean for p in seen}
    assert all(p.hack != p.clean for p in clean)
    assert not {p.hack for p in seen} & {p.hack for p in clean}
    with pytest.raises(PairsError, match="All clean completions are equal"):
        shown([replace(pair, clean=seen[0].clean) for pair in seen], "clean", seed=0)


def test_neither_control_separates_as_v_does(setting):
    policy, config, seen, held_out = setting
    found = {
        name: extract(policy, seen, held_out, replace(config, basis=name), seed=0).separation
        for name in ("hack", "shuffled", "clean")
    }
    assert max(found[name].captured for name in ("shuffled", "clean")) < found["hack"].captured


def test_off_the_axes_nothing_is_along_v_and_every_bit_comes_back(setting):
    policy, config, seen, _ = setting
    basis = extract(policy, seen, (), config, seed=0).basis
    before = {name: [v.detach().clone() for v in pair] for name, pair in policy.vectors.items()}
    with torch.no_grad(), off_the_axes(policy, basis):
        for name, (deployed, quarantine) in policy.vectors.items():
            along = basis[name] @ deployed
            was = basis[name] @ before[name][0]
            assert float(along.abs().max()) <= 1e-15 * 64 * float(was.abs().max())
            assert float((deployed + basis[name].T @ was - before[name][0]).abs().max()) <= 1e-15
            assert torch.equal(quarantine, before[name][1])
    for name, pair in policy.vectors.items():
        assert all(torch.equal(v, kept) for v, kept in zip(pair, before[name], strict=True))
