"""Everything that decides a training run, as typed data: the command line is made of it, checkpoints carry it along."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from projected_grpo.clip import ClipPolicy
from projected_grpo.errors import SettingError
from projected_grpo.routing import Intervention, Space
from projected_grpo.split import Gate, SplitRule
from projected_grpo.training.controls import BasisKind
from projected_grpo.training.loopholes import Loophole
from projected_grpo.training.schedule import Schedule

TESTBED, ARITHMETIC = "testbed", "arithmetic"  # the names of the models that are shipped


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The policy."""

    model: str = TESTBED
    """a name on the hub, the path of a saved model, or 'testbed' or 'arithmetic', the tiny ones that are shipped"""
    device: str = "cpu"
    """where it runs"""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """of its weights; the trained vectors stay float32 (float64 under float64)"""
    svd_dtype: Literal["float32", "float64"] = "float64"
    """precision of the decomposition of each weight"""
    threads: int | None = 1
    """of torch on the CPU; None leaves torch's own choice"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, a third more time"""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is asked and how it is graded."""

    task: Literal["testbed", "arithmetic", "code"] = "testbed"
    """the tiny testbed's questions, those of arithmetic, or programming problems"""
    problems: Path | None = None
    """JSONL of programming problems; the bundled set if left out"""
    modes: tuple[Loophole, ...] = ()
    """loophole modes to use; all that the task has if left out"""
    reward: Literal["foolable", "strict"] = "foolable"
    """what is paid for: the flawed grade, or the truth, which is the upper bound of any method"""
    format_weight: float = 0.25
    """paid for a completion of the right form"""
    workers: int = 1
    """processes that grade"""
    unsafe_grading: bool = False
    """run submissions without namespaces: only for completions that you trust"""


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """The policy gradient (Dr.GRPO) and its optimizer."""

    steps: int = 70
    """optimizer steps of the run, and length of the schedule"""
    prompts: int = 32
    """prompts a step"""
    group: int = 16
    """completions of each prompt"""
    lr: float = 1e-2
    """peak learning rate of AdamW"""
    betas: tuple[float, float] = (0.9, 0.99)
    """of AdamW"""
    weight_decay: float = 0.0
    """of AdamW, on both vectors"""
    warmup: float = 0.1
    """share of the steps in which the rate rises"""
    schedule: Schedule = "cosine"
    """what the rate does afterwards"""
    max_norm: float | None = 10.0
    """limit of the gradient's global norm; None clips nothing"""
    kl_beta: float = 0.0
    """weight of the k3 estimate of KL to the model without its vectors"""
    max_new_tokens: int = 16
    """longest completion; the loss is divided by prompts x group x this"""
    temperature: float = 1.0
    """of sampling"""
    micro_batch: int = 512
    """completions a backward pass"""
    generation_batch: int = 1024
    """completions that are sampled at once"""


@dataclass(frozen=True, kw_only=True)
class RoutingConfig:
    """What happens to the part of the gradient along V."""

    intervention: Intervention = "route"
    """none: vanilla; erase: dropped; route: moved into the quarantine"""
    space: Space = "displacement"
    """what is split: the gradient, the optimizer's update, or what was learned so far"""
    clip: ClipPolicy = "before"
    """what is clipped relative to the split; only gradient space has a choice"""
    gate: Gate = "one_sided"
    """which coefficients are used; predictable looks at earlier steps, so none has no post-hoc projection with it"""
    overshoot: float = 1.0
    """factor of what is removed"""
    preserve_magnitude: bool = False
    """rescale what is kept to the length of the gradient"""
    retained: float = 1.0
    """under erase outside gradient space: share of what is dropped that stays in the optimizer's point"""

    @property
    def rule(self) -> SplitRule:
        """How the component along V is treated."""
        return SplitRule(gate=self.gate, overshoot=self.overshoot, preserve_magnitude=self.preserve_magnitude)


@dataclass(frozen=True, kw_only=True)
class BasisConfig:
    """Where V comes from."""

    basis: BasisKind = "hack"
    """V of contrastive pairs, or a control: random rows, V with its signs flipped, V of shuffled or of clean pairs"""
    pairs: int = 48
    """how many contrastive pairs"""
    basis_from: Path | None = None
    """a V that was saved, refused if it belongs to other weights; extracted if left out"""
    pairs_from: Path | None = None
    """JSON or JSONL of pairs, or a pool of rollouts (.jsonl.gz); the task's own if left out"""
    detector_modes: tuple[Loophole, ...] = ()
    """modes whose hacks the pairs may show; all if left out (fewer: a weak detector)"""
    k: int = 8
    """most axes a module"""
    relative_floor: float = 0.0
    """an axis is kept if its singular value reaches this share of the module's largest"""
    global_floor: float = 0.0
    """and this share of the largest of all modules"""
    held_out: float = 0.25
    """share of the pairs that V does not see, to measure what it separates"""
    refresh_every: int = 0
    """extract V again every so many steps, with the quarantine ablated; 0: never"""
    least_overlap: float = 0.1
    """a refreshed V that shares less than this with the one before is refused, and that one kept"""
    measure: bool = True
    """extract V and log what is hack-ward under --intervention none too"""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Rollouts of somebody else in the groups."""

    pool: Path | None = None
    """a pool that `projected-grpo pool` wrote"""
    teach_pairs: bool = False
    """let the task's own contrastive pairs teach, hacks and solutions alike"""
    mix: float = 0.5
    """share of each group that the teacher gives, where the pool has the prompt"""
    teacher_steps: int | None = None
    """how many steps have a teacher; None: all"""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Looks at the model, as trained and as deployed, on prompts that it is not trained on."""

    evaluate_every: int = 10
    """steps; 0: only at the end"""
    evaluation_prompts: int = 512
    """how many of them; from the beginning again if there are fewer"""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The run as such."""

    out: Path | None = None
    """its folder; runs/<preset>-<intervention>-seed<seed> if left out"""
    seed: int = 0
    """of everything that is drawn"""
    checkpoint_every: int = 10
    """steps"""
    log: bool = True
    """write log.jsonl"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    preset: Annotated[str, tyro.conf.Suppress] = "tiny"
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    basis: BasisConfig = field(default_factory=BasisConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _check_words(self)
        for name, value, least in (
            ("threads", self.model.threads, 1),
            ("workers", self.task.workers, 1),
            ("steps", self.grpo.steps, 1),
            ("prompts", self.grpo.prompts, 1),
            ("group", self.grpo.group, 2),
            ("max_new_tokens", self.grpo.max_new_tokens, 1),
            ("micro_batch", self.grpo.micro_batch, 1),
            ("generation_batch", self.grpo.generation_batch, 1),
            ("pairs", self.basis.pairs, 1),
            ("k", self.basis.k, 1),
            ("refresh_every", self.basis.refresh_every, 0),
            ("teacher_steps", self.teacher.teacher_steps, 0),
            ("evaluate_every", self.evaluation.evaluate_every, 0),
            ("evaluation_prompts", self.evaluation.evaluation_prompts, 1),
            ("checkpoint_every", self.run.checkpoint_every, 1),
            ("seed", self.run.seed, 0),
        ):
            if value is not None and value < least:
                raise SettingError(f"{name} is {value}; it must be at least {least}.")
        for name, number, above, least_ in (
            ("lr", self.grpo.lr, True, 0.0),
            ("temperature", self.grpo.temperature, True, 0.0),
            ("max_norm", self.grpo.max_norm, True, 0.0),
            ("overshoot", self.routing.overshoot, True, 0.0),
            ("weight_decay", self.grpo.weight_decay, False, 0.0),
            ("kl_beta", self.grpo.kl_beta, False, 0.0),
            ("format_weight", self.task.format_weight, False, 0.0),
        ):
            if number is not None and not (least_ <= number < math.inf and (number > 0 or not above)):
                raise SettingError(f"{name} is {number}; it must be a finite number {'above' if above else 'from'} 0.")
        for name, share, high in (
            ("warmup", self.grpo.warmup, 1.0),
            ("held_out", self.basis.held_out, 0.9),
            ("least_overlap", self.basis.least_overlap, 1.0),
            ("relative_floor", self.basis.relative_floor, 1.0),
            ("global_floor", self.basis.global_floor, 1.0),
            ("mix", self.teacher.mix, 1.0),
            ("retained", self.routing.retained, 1.0),
        ):
            if not 0 <= share <= high:
                raise SettingError(f"{name} is {share}; it is a share, from 0 to {high:g}.")
        if not all(0 <= beta < 1 for beta in self.grpo.betas):
            raise SettingError(f"betas are {self.grpo.betas}; both must be from 0 to below 1.")
        self._check_together()

    def _check_together(self) -> None:
        """Refuses settings that would do nothing."""
        teaches = self.teacher.pool is not None or self.teacher.teach_pairs
        if self.teacher.pool is not None and self.teacher.teach_pairs:
            raise SettingError(
                "There are two teachers, a pool and the pairs; leave out --pool, or say --no-teach-pairs."
            )
        if teaches and not round(self.teacher.mix * self.grpo.group):
            raise SettingError(
                f"mix is {self.teacher.mix}, which is no completion of a group of {self.grpo.group}; raise it, or "
                "leave the teacher out."
            )
        if not self.extracts and (
            self.basis.basis != "hack" or self.basis.basis_from is not None or self.basis.refresh_every
        ):
            raise SettingError("A run with --intervention none and --no-measure has no basis; leave the basis out.")
        if self.task.problems is not None and self.task.task != "code":
            raise SettingError(
                f"--problems are for programming, and --task {self.task.task} asks none of them; add --task code."
            )

    @property
    def extracts(self) -> bool:
        """Whether the run has a basis at all: under none V is only looked at."""
        return self.routing.intervention != "none" or self.basis.measure


def _check_words(config: Any) -> None:
    """Refuses a word that is none of those that a setting may have."""
    for section in (getattr(config, each.name) for each in fields(config)):
        for name, hint in get_type_hints(type(section)).items() if is_dataclass(section) else ():
            value = getattr(section, name)
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise SettingError(f"{name} is {value!r}; it must be one of {', '.join(get_args(hint))}.")


def as_plain(config: Any) -> Any:
    """A config as JSON has it: paths and modes as strings, tuples as lists."""
    if is_dataclass(config):
        return {each.name: as_plain(getattr(config, each.name)) for each in fields(config)}
    if isinstance(config, tuple):
        return [as_plain(value) for value in config]
    return str(config) if isinstance(config, Path | StrEnum) else config
