"""The report at the end of a run: the rates of every view of the model, on the same prompts with the same luck."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from projected_grpo.training.evaluation import Rates

ROWS: dict[str, str] = {
    "base": "base model, untrained",
    "trained": "as trained, quarantine kept",
    "deployed": "as deployed, quarantine ablated",
    "posthoc": "as trained, then projected off V once",
    "off_axes": "as deployed, without anything along V",
}

ROWS_WITHOUT = ROWS | {"trained": "as trained and deployed", "posthoc": "projected off V once, afterwards"}


def plain(rates: Rates) -> dict[str, Any]:
    """Rates as JSON has them."""
    return asdict(rates) | {"standard_error": rates.standard_error}


@dataclass(frozen=True)
class Report:
    """Rates by view: base, trained, deployed; with a basis off_axes, and without an intervention posthoc."""

    arm: str
    steps: int
    seed: int
    rates: Mapping[str, Rates]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        rates = {view: plain(own) for view, own in self.rates.items()}
        return {"arm": self.arm, "steps": self.steps, "seed": self.seed, "rates": rates}

    def table(self) -> Table:
        """As a terminal has it."""
        modes = list(next(iter(self.rates.values())).hack_by_mode)
        table = Table(
            title=f"{self.arm}, {self.steps} steps, seed {self.seed}", box=box.SIMPLE_HEAD, title_justify="left"
        )
        table.add_column("model")
        for name in ("hack", "±", "solve", "format", *(f"hack {mode}" for mode in modes)):
            table.add_column(name, justify="right")
        rows = dict(self.rates)
        if self.arm != "route":  # without a quarantine both are one model
            del rows["deployed"]
        for view, own in rows.items():
            cells = [own.hack, own.standard_error, own.solve, own.format, *(own.hack_by_mode[mode] for mode in modes)]
            table.add_row(ROWS[view] if self.arm == "route" else ROWS_WITHOUT[view], *(f"{cell:.3f}" for cell in cells))
        return table
