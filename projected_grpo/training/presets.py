"""Named configurations.

tiny: the testbed, an experiment of seconds with real effects. arithmetic: the same of the other testbed. smoke: the
testbed again, 30 small steps that take every path through the code. fast and full: Qwen3-4B on programming problems,
with published hyperparameters.
"""

from projected_grpo.training.config import (
    BasisConfig,
    EvaluationConfig,
    GRPOConfig,
    ModelConfig,
    RoutingConfig,
    RunConfig,
    TaskConfig,
    TeacherConfig,
    TrainConfig,
)

TINY = TrainConfig()

ARITHMETIC = TrainConfig(preset="arithmetic", model=ModelConfig(model="arithmetic"), task=TaskConfig(task="arithmetic"))

SMOKE = TrainConfig(
    preset="smoke",
    grpo=GRPOConfig(steps=30, prompts=8, group=8, micro_batch=32, kl_beta=1e-3),
    basis=BasisConfig(pairs=12, refresh_every=10),
    teacher=TeacherConfig(teach_pairs=True, mix=0.25, teacher_steps=20),
    evaluation=EvaluationConfig(evaluate_every=10, evaluation_prompts=64),
    run=RunConfig(checkpoint_every=5),
)

_QWEN = ModelConfig(model="Qwen/Qwen3-4B", device="cuda", dtype="bfloat16", svd_dtype="float32", threads=None)
_CODE = TaskConfig(task="code", workers=8)

FAST = TrainConfig(
    preset="fast",
    model=_QWEN,
    task=_CODE,
    grpo=GRPOConfig(
        steps=20, prompts=4, group=4, lr=3e-3, betas=(0.5, 0.9), max_norm=500.0, kl_beta=0.0, max_new_tokens=512,
        micro_batch=4, generation_batch=16,
    ),
    routing=RoutingConfig(),
    basis=BasisConfig(pairs=24, k=5),
    evaluation=EvaluationConfig(evaluate_every=10, evaluation_prompts=16),
)  # fmt: skip

FULL = TrainConfig(
    preset="full",
    model=_QWEN,
    task=_CODE,
    grpo=GRPOConfig(
        steps=200, prompts=43, group=6, lr=1e-3, betas=(0.9, 0.99), max_norm=1.0, kl_beta=1e-3, max_new_tokens=1024,
        micro_batch=2, generation_batch=64,
    ),
    routing=RoutingConfig(),
    basis=BasisConfig(pairs=48, k=5),
    evaluation=EvaluationConfig(evaluate_every=20, evaluation_prompts=64),
)  # fmt: skip

PRESETS: dict[str, TrainConfig] = {"tiny": TINY, "arithmetic": ARITHMETIC, "smoke": SMOKE, "fast": FAST, "full": FULL}
