"""The adapter's configuration, as PEFT saves it next to the weights."""

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig

from projected_grpo.adapter.decomposition import resolve_svd_dtype
from projected_grpo.adapter.errors import AdapterConfigError


class PeftTypeName(str):
    """A method name that PEFT accepts where it expects a member of its own closed PeftType enum.

    PEFT looks methods up by this string, reads `.value`, and splits what it prints at the dot.
    """

    __slots__ = ()

    @property
    def value(self) -> str:
        """The bare name, as an enum member has it."""
        return str.__str__(self)

    def __str__(self) -> str:
        return f"PeftType.{self.value}"


SVD_ROUTING = PeftTypeName("SVD_ROUTING")


@dataclass
class SVDRoutingConfig(PeftConfig):  # type: ignore[misc]  # PEFT is untyped
    """Which Linear modules get a pair of vectors along their singular directions.

    target_modules: names or endings of names, a regular expression, or "all-linear" (the default: every Linear but
        the output head), as in every PEFT configuration; exclude_modules takes names away again.
    layers_to_transform, layers_pattern: restrict a list of names to some layers, as in every PEFT configuration.
    quarantine: False for a deployment checkpoint, which has no second vector at all.
    svd_dtype: "float64" or "float32", the precision of the decomposition.
    fingerprints: module name -> fingerprint of its basis. Filled when the adapter is injected, saved with it, and
        checked against the base model when it is loaded; leave it empty for a new adapter.

    Raises AdapterConfigError for values that no adapter can have.
    """

    target_modules: list[str] | set[str] | str | None = field(default=None)
    exclude_modules: list[str] | set[str] | str | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
    quarantine: bool = field(default=True)
    svd_dtype: str = field(default="float64")
    fingerprints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = SVD_ROUTING
        resolve_svd_dtype(self.svd_dtype)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        for option in ("layers_to_transform", "layers_pattern"):
            if getattr(self, option) is not None and not isinstance(self.target_modules, set):
                raise AdapterConfigError(
                    f"{option} needs target_modules to be a list of endings of names, and it is "
                    f"{self.target_modules!r}: give such a list, or a regular expression that names the layers itself."
                )
        if self.layers_pattern is not None and self.layers_to_transform is None:
            raise AdapterConfigError("layers_pattern is given without layers_to_transform: say which layers as well.")

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields with sets sorted, so that the same adapter always writes the same file."""
        return {key: sorted(value) if isinstance(value, set) else value for key, value in super().to_dict().items()}
