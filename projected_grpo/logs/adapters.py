"""The same metrics for TensorBoard, wandb and trackio: each adapter is told of events as a log is.

    with tracking("tensorboard", folder) as tell:
        Trainer.begin(config, tell=tell)

Every number is called "event/name", and a number in an object "event/name/key", as declared. Nothing is sent that was
not measured: null is no point of a curve, and never 0.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from projected_grpo.logs.errors import MissingTrackerError
from projected_grpo.logs.metrics import declared

Tracker = Literal["tensorboard", "wandb", "trackio"]
Tell = Callable[[str, int, Mapping[str, Any]], None]


@runtime_checkable
class ScalarWriter(Protocol):
    """What is used of TensorBoard's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Adds a point to a curve."""

    def add_text(self, tag: str, text_string: str, global_step: int) -> object:
        """Adds a text."""


@runtime_checkable
class Run(Protocol):
    """What is used of a run of wandb or trackio."""

    def log(self, metrics: dict[str, Any], *, step: int) -> object:
        """Adds a point to each of several curves."""


def to_tensorboard(writer: ScalarWriter) -> Tell:
    """Hands events to a SummaryWriter."""

    def tell(event: str, step: int, values: Mapping[str, Any]) -> None:
        for tag, value in numbers(event, values).items():
            writer.add_scalar(tag, value, step)
        for tag, text in texts(event, values).items():
            writer.add_text(tag, text, step)

    return tell


def to_run(run: Run) -> Tell:
    """Hands events to a run of wandb, or to trackio."""

    def tell(event: str, step: int, values: Mapping[str, Any]) -> None:
        if points := {**numbers(event, values), **texts(event, values)}:
            run.log(points, step=step)

    return tell


def to_all(*tells: Tell) -> Tell:
    """Hands events to several."""

    def tell(event: str, step: int, values: Mapping[str, Any]) -> None:
        for each in tells:
            each(event, step, values)

    return tell


def numbers(event: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an event by "event/name"; those in an object by "event/name/key"."""
    found: dict[str, float] = {}
    for name, metric in declared(event).items():
        value = values.get(name)
        if metric.kind in ("float", "int", "bool") and value is not None:
            found[f"{event}/{name}"] = float(value)
        elif metric.kind == "object" and metric.unit and isinstance(value, dict):
            found |= {f"{event}/{name}/{key}": float(each) for key, each in value.items() if each is not None}
    return found


def texts(event: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The texts of an event, in the same way."""
    named = declared(event).items()
    return {f"{event}/{name}": str(values[name]) for name, m in named if m.kind == "str" and values.get(name)}


@contextmanager
def tracking(tracker: str, folder: Path) -> Iterator[Tell]:
    """A block in which a tracker is told of events, under the folder's name; it keeps what it writes in the folder, or
    where it always does.

    Raises MissingTrackerError if it is not installed, or if there is no such tracker.
    """
    if tracker == "tensorboard":
        writer = _module("torch.utils.tensorboard", tracker).SummaryWriter(log_dir=str(folder / "tensorboard"))
        try:
            yield to_tensorboard(writer)
        finally:
            writer.close()
    elif tracker in get_args(Tracker):
        module = _module(tracker, tracker)
        run = module.init(project="projected-grpo", name=folder.name)
        try:
            yield to_run(module if tracker == "trackio" else run)  # trackio logs to the run that was begun last
        finally:
            module.finish()
    else:
        raise MissingTrackerError(f"There is no tracker {tracker!r}; choose one of {', '.join(get_args(Tracker))}.")


def _module(name: str, tracker: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingTrackerError(f"{tracker} is not installed; run pip install {tracker}.") from None
