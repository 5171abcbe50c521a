"""The reference SGD and AdamW against torch's, in float64, over 200 steps."""

import pytest
import torch

from reference import SGD, AdamW

STEPS, R = 200, 12
AGREEMENT = 1e-13  # relative; 200 steps of about 4 roundings (u = 1.1e-16) each

SGD_GRID = [
    {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": decay}
    for lr in (1e-3, 0.1)
    for momentum, dampening, nesterov in [
        (0, 0, False),
        (0, 0.3, False),
        (0.9, 0, False),
        (0.9, 0.3, False),
        (0.8, 0, True),
    ]
    for decay in (0, 0.05)
]
ADAMW_GRID = [
    {"lr": lr, "betas": betas, "eps": eps, "weight_decay": decay}
    for lr in (1e-3, 0.1)
    for betas in [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)]
    for eps in (1e-8, 1e-2)
    for decay in (0, 0.1)
]


SGD_GRID += [{"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "maximize": True}]
ADAMW_GRID += [
    {"lr": 0.1, "betas": (0.9, 0.99), "amsgrad": amsgrad, "maximize": maximize}
    for amsgrad in (False, True)
    for maximize in (False, True)
]


def problem():
    """A start (R,) and gradients (STEPS, R) whose coordinates lie up to six orders of magnitude apart."""
    generator = torch.Generator().manual_seed(0)
    start, gradients = (torch.randn(n, R, dtype=torch.float64, generator=generator) for n in (1, STEPS))
    return start[0], gradients * torch.logspace(-3, 3, R, dtype=torch.float64)


def difference(a, b):
    return (a - b).norm() / b.norm()


def both(reference, of_torch, shrink=1.0):
    """(p, state, torch's p, torch's state) after each step; `shrink` scales torch's p before its step."""
    start, gradients = problem()
    p, state = start, reference.start(start)
    q = torch.nn.Parameter(start.clone())
    optimizer = of_torch([q])
    for g in gradients:
        p, state = reference.step(p, g, state)
        q.data.mul_(shrink)
        q.grad = g.clone()
        optimizer.step()
        yield p, state, q.detach(), optimizer.state[q]


@pytest.mark.parametrize("hyperparameters", SGD_GRID, ids=str)
def test_sgd_is_torchs(hyperparameters):
    for p, state, q, of_torch in both(SGD(**hyperparameters), lambda ps: torch.optim.SGD(ps, **hyperparameters)):
        assert difference(p, q) <= AGREEMENT
        if hyperparameters["momentum"]:
            assert difference(state["buffer"], of_torch["momentum_buffer"]) <= AGREEMENT


@pytest.mark.parametrize("hyperparameters", ADAMW_GRID, ids=str)
def test_adamw_is_torchs(hyperparameters):
    for p, state, q, of_torch in both(AdamW(**hyperparameters), lambda ps: torch.optim.AdamW(ps, **hyperparameters)):
        assert difference(p, q) <= AGREEMENT
        assert difference(state["m"], of_torch["exp_avg"]) <= AGREEMENT
        assert difference(state["v"], of_torch["exp_avg_sq"]) <= AGREEMENT
        if hyperparameters.get("amsgrad"):
            assert difference(state["v_max"], of_torch["max_exp_avg_sq"]) <= AGREEMENT
        assert state["t"] == of_torch["step"]


def test_amsgrad_divides_by_the_largest_second_moment_so_far():
    """After a large gradient come small ones: the second moment forgets it, its maximum does not."""
    start, small = torch.zeros(1, dtype=torch.float64), torch.full((1,), 1e-3, dtype=torch.float64)
    moved = {}
    for amsgrad in (False, True):
        optimizer = AdamW(lr=0.1, betas=(0.0, 0.5), weight_decay=0.0, amsgrad=amsgrad)
        p, state = optimizer.step(start, 1e3 * small, optimizer.start(start))
        for _ in range(20):
            before = p
            p, state = optimizer.step(p, small, state)
        moved[amsgrad] = float((p - before).abs())
    assert moved[True] < 0.01 * moved[False]


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_ascending_on_a_gradient_is_descending_on_its_negative(kind):
    start, gradients = problem()
    up, down = kind(lr=0.1, maximize=True), kind(lr=0.1)
    assert torch.equal(
        up.step(start, gradients[0], up.start(start))[0], down.step(start, -gradients[0], down.start(start))[0]
    )


def test_without_momentum_there_is_no_buffer():
    start, gradients = problem()
    plain = SGD(lr=0.1)
    state = plain.start(start)
    assert plain.step(start, gradients[0], state)[1] == state == {"buffer": None}


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_decoupled_decay_shrinks_the_parameter_and_stays_out_of_the_momentum(momentum):
    decay, lr = 0.2, 0.1
    reference = SGD(lr=lr, momentum=momentum, decoupled_decay=decay)
    plain = both(reference, lambda ps: torch.optim.SGD(ps, lr=lr, momentum=momentum), shrink=1 - lr * decay)
    assert all(difference(p, q) <= AGREEMENT for p, _, q, _ in plain)


def test_decoupled_decay_has_its_closed_form():
    """p_t = q^t p_0 - lr sum_i q^(t-1-i) g_i with q = 1 - lr decay."""
    start, gradients = problem()
    lr, q = 0.1, 1 - 0.1 * 0.2
    p = start
    for g in gradients:
        p, _ = SGD(lr=lr, decoupled_decay=0.2).step(p, g, {"buffer": None})
    powers = q ** torch.arange(STEPS - 1, -1, -1, dtype=torch.float64)  # (STEPS,)
    assert difference(p, q**STEPS * start - lr * powers @ gradients) <= AGREEMENT


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.1, momentum=0.9, weight_decay=0.1), AdamW(lr=0.1)], ids=["SGD", "AdamW"]
)
def test_a_step_leaves_its_arguments_alone(optimizer):
    start, gradients = problem()
    p, state = optimizer.step(start, gradients[0], optimizer.start(start))
    first = optimizer.step(p, gradients[1], state)
    again = optimizer.step(p, gradients[1], state)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], p)
    assert torch.equal(start, problem()[0])
    assert torch.equal(gradients, problem()[1])
