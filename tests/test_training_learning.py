"""The gradient of a step against the specification's loss, and the rollouts that it comes from."""

from dataclasses import replace

import pytest
import torch
from training_toys import TOY, toy

from projected_grpo.training.checkpoints import named, restore
from projected_grpo.training.learning import accumulate
from projected_grpo.training.policy import Policy, load
from projected_grpo.training.pool import Pool, Rollout
from projected_grpo.training.rollouts import Rollouts, collect
from projected_grpo.training.setting import lessons, make_policy_and_task
from projected_grpo.training.task import Task
from reference import grpo


@pytest.fixture(scope="module")
def policy_and_task():
    config = toy(model={"dtype": "float64"})
    policy, task = make_policy_and_task(config)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for pair in policy.vectors.values():
            for vector in pair:
                vector.copy_(torch.randn(vector.shape, generator=draw, dtype=vector.dtype) * 0.02)
    yield policy, task
    task.close()


@pytest.fixture(scope="module")
def mixed(policy_and_task) -> Rollouts:
    policy, task = policy_and_task
    pool = lessons(task, seed=0)
    return collect(policy, task, TOY.grpo, TOY.teacher, pool, seed=0, step=0)


def specified(
    policy: Policy, rollouts: Rollouts, rows: torch.Tensor, temperature: float = 1.0
) -> dict[str, torch.Tensor]:
    """The gradient of the specification's loss over some of the rollouts, in one graph of the plain model."""
    batch = rollouts.completions[rows]
    ids = torch.cat([batch.prompt_ids, batch.ids], dim=1)  # no prompt of the testbed is padded

    def log_probs_now() -> torch.Tensor:
        return grpo.token_log_probs(policy.model(input_ids=ids).logits / temperature, batch.ids)

    log_probs = log_probs_now()
    with policy.viewed("base"), torch.no_grad():
        base = log_probs_now()
    loss = grpo.loss(
        log_probs, log_probs.detach(),
        grpo.advantages(rollouts.scored.reward.double().view(-1, TOY.grpo.group)).flatten()[rows],
        batch.mask, denominator=TOY.grpo.group * TOY.grpo.prompts * TOY.grpo.max_new_tokens,
        reference_log_prob=base, beta=TOY.grpo.kl_beta,
    )  # fmt: skip
    pairs = policy.vectors
    gradients = torch.autograd.grad(loss, [pair.deployed for pair in pairs.values()])
    return dict(zip(pairs, gradients, strict=True))


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Up to rounding: advantages are float32, everything else float64, RMSNorm's inside is float32."""
    largest = max(float(g.abs().max()) for g in expected.values())
    return all(float((found[name] - g).abs().max()) <= 1e-6 * largest for name, g in expected.items())


@pytest.mark.parametrize("micro_batch", [1000, 5])
def test_the_gradient_is_the_specifications_and_so_is_each_sources(policy_and_task, mixed, micro_batch):
    policy, _ = policy_and_task
    assert 0 < int(mixed.teacher.sum()) < len(mixed), "both sources are there"
    learned = accumulate(policy, mixed, replace(TOY.grpo, micro_batch=micro_batch))
    total = {name: pair.deployed.grad for name, pair in policy.vectors.items()}
    everything = torch.arange(len(mixed))
    assert close(total, specified(policy, mixed, everything))
    assert close(learned.student, specified(policy, mixed, everything[~mixed.teacher]))
    assert close(learned.teacher, specified(policy, mixed, everything[mixed.teacher]))
    assert learned.agreement is not None
    assert learned.kl > 0


@pytest.mark.parametrize("taught", [True, False])
def test_equal_completions_are_run_once_and_count_as_often_as_they_are_there(policy_and_task, mixed, taught):
    """With a teacher row by row, without one in whole weights; unequal advantages of equal completions average out."""
    policy, _ = policy_and_task
    own = torch.arange(len(mixed)) if taught else (~mixed.teacher).nonzero().squeeze(1)
    rows = torch.cat([own, own[:3], own[:3], own[4:5]])[torch.randperm(len(own) + 7, generator=torch.Generator())]
    advantages = mixed.advantages[rows].clone()
    at = (rows == own[0]).nonzero().squeeze(1)
    advantages[at] += torch.tensor([0.5, -0.25, -0.25])
    repeated = replace(
        mixed, completions=mixed.completions[rows], teacher=mixed.teacher[rows], advantages=advantages, prompts=()
    )
    run = []
    seen = policy.model.register_forward_pre_hook(lambda _, __, given: run.append(given["input_ids"]), with_kwargs=True)
    learned = accumulate(policy, repeated, replace(TOY.grpo, micro_batch=5))
    seen.remove()
    total = {name: pair.deployed.grad for name, pair in policy.vectors.items()}
    assert close(total, specified(policy, mixed, rows))
    assert sum(map(len, run)) <= 2 * len(own), "with and without the vectors"
    widths = [ids.shape[1] for ids in run]
    assert widths == sorted(widths), "the shortest stand together"
    batch = repeated.completions
    with torch.no_grad():
        base = policy.reference_log_probs(batch)
        kl = grpo.k3(policy.log_probs(batch), base)[batch.mask].mean()
    assert learned.kl == pytest.approx(float(kl), rel=1e-6), "a mean over tokens, each as often as it is there"


def test_at_another_temperature_it_is_the_gradient_of_what_was_sampled(policy_and_task, mixed):
    policy, _ = policy_and_task
    accumulate(policy, mixed, replace(TOY.grpo, temperature=1.5))
    total = {name: pair.deployed.grad for name, pair in policy.vectors.items()}
    everything = torch.arange(len(mixed))
    assert close(total, specified(policy, mixed, everything, temperature=1.5))
    assert not close(total, specified(policy, mixed, everything))


def test_recomputed_activations_give_the_same_gradient(policy_and_task, mixed):
    policy, _ = policy_and_task
    accumulate(policy, mixed, TOY.grpo)
    kept = {name: pair.deployed.grad.clone() for name, pair in policy.vectors.items()}
    again = load(replace(TOY.model, dtype="float64", gradient_checkpointing=True))[0]
    restore(again.vectors, named(policy.vectors))
    learned = accumulate(again, mixed, TOY.grpo)
    assert close({name: pair.deployed.grad for name, pair in again.vectors.items()}, kept)
    both = {name: learned.student[name] + learned.teacher[name] for name in kept}
    assert close(both, kept)


def test_what_was_accumulated_before_is_gone(policy_and_task, mixed):
    policy, _ = policy_and_task
    accumulate(policy, mixed, TOY.grpo)
    once = {name: pair.deployed.grad.clone() for name, pair in policy.vectors.items()}
    accumulate(policy, mixed, TOY.grpo)
    assert all(torch.equal(once[name], pair.deployed.grad) for name, pair in policy.vectors.items())


def test_groups_of_equal_rewards_are_not_run_and_give_zero(policy_and_task, mixed):
    policy, _ = policy_and_task
    flat = replace(mixed, advantages=torch.zeros_like(mixed.advantages))
    learned = accumulate(policy, flat, replace(TOY.grpo, kl_beta=0.0))
    assert learned.loss == 0
    assert all(not pair.deployed.grad.any() for pair in policy.vectors.values())


def test_padding_on_the_left_does_not_reach_a_log_prob(policy_and_task):
    policy, _ = policy_and_task
    prompts, completion = [[1, 2, 3, 4], [7, 8]], [20, 21, 2]
    with torch.no_grad():
        together = policy.log_probs(policy.completed(prompts, [completion, completion]))
        apart = [policy.log_probs(policy.completed([prompt], [completion])) for prompt in prompts]
    for row, alone in enumerate(apart):
        assert float((together[row] - alone[0]).abs().max()) <= 1e-6


def test_every_group_has_its_own_prompt_and_the_pool_gives_its_share(mixed):
    group = TOY.grpo.group
    assert mixed.teacher.view(-1, group).sum(dim=1).unique().tolist() in ([0, 2], [2])
    prompts = mixed.completions.prompt_ids.view(-1, group, mixed.completions.prompt_ids.shape[1])
    assert bool((prompts == prompts[:, :1]).all())
    # A hack or a solution each, but a solution of one meaning of an ambiguous word may be asked for the other.
    assert float(mixed.scored.passed[mixed.teacher].double().mean()) > 0.5


def test_the_teacher_leaves_when_it_is_told_to(policy_and_task):
    policy, task = policy_and_task
    pool = lessons(task, seed=0)
    for step, there in ((3, True), (4, False)):
        rollouts = collect(policy, task, TOY.grpo, TOY.teacher, pool, seed=0, step=step)
        assert bool(rollouts.teacher.any()) == there


def test_a_lie_in_a_pool_decides_no_reward(policy_and_task):
    policy, task = policy_and_task
    honest = collect(policy, task, TOY.grpo, TOY.teacher, _pool(task, lies=False), seed=0, step=0)
    lied = collect(policy, task, TOY.grpo, TOY.teacher, _pool(task, lies=True), seed=0, step=0)
    assert bool(honest.teacher.any())
    assert torch.equal(honest.scored.reward, lied.scored.reward)


def _pool(task: Task, *, lies: bool) -> Pool:
    prompts = task.draw(200, torch.Generator().manual_seed(0))
    wrong = "class Solution:\n def f(self,x):\n  return 0\n"
    tokens = tuple(task.tokens(wrong))
    return Pool(Rollout(p.key, p.mode, p.ids, tokens, wrong, passed=lies, solved=lies) for p in prompts)
