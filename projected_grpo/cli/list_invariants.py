"""`projected-grpo invariants`: what is checked."""

from rich.table import Table

from projected_grpo.cli.suite import ensure_own_suite
from projected_grpo.cli.terminal import show


def list_invariants() -> int:
    """List every invariant with its theorem, the capability that it needs, and its statement."""
    ensure_own_suite()
    import invariants

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("invariant", "theorem", "needs"):
        table.add_column(column, no_wrap=True)
    table.add_column("statement", overflow="fold")
    for known in invariants.all_invariants():
        table.add_row(known.id, known.theorem, known.capability, known.statement)
    show(table)
    return 0
