"""What a third party hands in: a small frozen dataclass of callables, with the claims that it makes.

Nothing is subclassed and nothing is registered. Somebody who only has `split(g, V)` writes

    subject = Subject(name="mine", split=split)

and somebody with several configurations maps each setting to its callable. A callable never receives the setting:
the setting says what the callable does, so that the suite knows which theorems apply.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from invariants.contracts import (
    SETTINGS,
    AdapterFactory,
    AdapterSetting,
    Capability,
    ExtractionFunction,
    ExtractionSetting,
    GradeFunction,
    GradeSetting,
    GRPOLoss,
    GRPOSetting,
    LogSetting,
    LogsFactory,
    Setting,
    SplitFunction,
    SplitSetting,
    StepFactory,
    StepSetting,
    TrainFunction,
    TrainSetting,
)
from invariants.errors import SubjectContractError

ONE_STRING = "claims must be a collection of ids, such as {{{0!r}}}, not a string."


def unknown_words(setting: Any) -> Iterator[tuple[str, object, list[str]]]:
    """Fields of a dataclass, and of those in it, that take one of a few words and hold none: name, value, the words."""
    for name, hint in get_type_hints(type(setting)).items():
        value = getattr(setting, name)
        options = [hint, *get_args(hint)] if get_origin(hint) in (Union, UnionType) else [hint]
        lists = [inner for option in options if get_origin(option) is tuple for inner in get_args(option)]
        words = [word for option in [*options, *lists] if get_origin(option) is Literal for word in get_args(option)]
        given = list(value) if lists and isinstance(value, tuple) else [value]
        if is_dataclass(value):
            yield from unknown_words(value)
        elif lists and not isinstance(value, tuple):
            yield name, value, [f"tuples of {word!r}" for word in words]
        elif words and not (value is None and NoneType in options) and any(word not in words for word in given):
            yield name, value, words


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An implementation under test: any of the capabilities, all optional.

    dtype is the dtype of the tensors that the suite hands in. claims, for settings that make none of their own: ids of
    the invariants that the subject says it keeps; None claims every one that applies. A guarantee that is not claimed
    is measured and reported, and its failure is no violation.
    """

    name: str
    split: SplitFunction | Mapping[SplitSetting, SplitFunction] | None = None
    routed_step: StepFactory | Mapping[StepSetting, StepFactory] | None = None
    adapter: AdapterFactory | Mapping[AdapterSetting, AdapterFactory] | None = None
    grpo: GRPOLoss | Mapping[GRPOSetting, GRPOLoss] | None = None
    extraction: ExtractionFunction | Mapping[ExtractionSetting, ExtractionFunction] | None = None
    train: TrainFunction | Mapping[TrainSetting, TrainFunction] | None = None
    grade: GradeFunction | Mapping[GradeSetting, GradeFunction] | None = None
    logs: LogsFactory | Mapping[LogSetting, LogsFactory] | None = None
    dtype: torch.dtype = torch.float64
    claims: Collection[str] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise SubjectContractError("A subject needs a name; pass Subject(name=...).")
        if isinstance(self.claims, str):
            raise SubjectContractError(f"Subject {self.name!r}: {ONE_STRING.format(self.claims)}")
        if not isinstance(self.dtype, torch.dtype) or not self.dtype.is_floating_point:
            raise SubjectContractError(
                f"Subject {self.name!r}: dtype must be a floating torch.dtype, not {self.dtype!r}."
            )
        for capability, kind in SETTINGS.items():
            given = getattr(self, capability)
            values = given.values() if isinstance(given, Mapping) else [] if given is None else [given]
            if any(not callable(value) for value in values) or (isinstance(given, Mapping) and not given):
                raise SubjectContractError(
                    f"Subject {self.name!r}: {capability} must be a callable or a non-empty mapping from settings to "
                    f"callables, not {given!r}."
                )
            for setting in given if isinstance(given, Mapping) else ():
                if not isinstance(setting, kind):
                    raise SubjectContractError(
                        f"Subject {self.name!r}: a key of {capability} must be a {kind.__name__}, not {setting!r}."
                    )
                if isinstance(setting.claims, str):
                    raise SubjectContractError(f"Subject {self.name!r}: {ONE_STRING.format(setting.claims)}")
                for field, value, words in unknown_words(setting):
                    raise SubjectContractError(
                        f"Subject {self.name!r}: {kind.__name__} has {field}={value!r}; there are {', '.join(words)}."
                    )

    def settings(self, capability: Capability) -> dict[Setting, Callable[..., object]]:
        """Each setting of a capability with its callable; empty if the subject lacks the capability."""
        given = getattr(self, capability)
        if given is None:
            return {}
        if isinstance(given, Mapping):
            return dict(given)
        return {SETTINGS[capability](): given}

    def claims_it(self, invariant_id: str, setting: Setting) -> bool:
        """Whether the subject says that it keeps this invariant under this setting."""
        claims = setting.claims if setting.claims is not None else self.claims
        return claims is None or invariant_id in claims
