"""Which problem is graded under which mode: an exact assignment, or the modes that make one impossible.

Every mode gets as many problems as its quota says, no problem has two modes, and each problem is eligible for its
mode. This is a bipartite b-matching, solved as a flow: source -> problem (1) -> eligible mode -> sink (its quota).
A flow short of the quotas leaves a minimum cut, and the modes on its sink's side violate Hall's condition: together
they need more problems than are eligible for any of them.
"""

import ast
import random
from collections.abc import Collection, Iterable, Mapping, Sequence

import networkx as nx

from projected_grpo.environment.completion import parsed
from projected_grpo.environment.errors import ModeAssignmentError, Starved, StarvedModeError
from projected_grpo.environment.modes import LOOPHOLES, Mode
from projected_grpo.environment.problem import Problem

SOURCE, SINK = -1, -2  # nodes are integers: strings would be visited in another order in every process


def eligible_modes(problems: Iterable[Problem], modes: Collection[Mode] = LOOPHOLES) -> dict[str, tuple[Mode, ...]]:
    """The modes that each problem admits: all of `modes`, less STDOUT_MARKER if its own solution prints."""
    return {
        problem.id: tuple(
            mode for mode in modes if mode is not Mode.STDOUT_MARKER or not _prints(problem.setup, problem.canonical)
        )
        for problem in problems
    }


def even_quota(count: int, modes: Sequence[Mode] = LOOPHOLES) -> dict[Mode, int]:
    """`count` problems over the modes, as evenly as can be: the first ones in order get one more."""
    share, more = divmod(count, len(modes))
    return {mode: share + (place < more) for place, mode in enumerate(modes)}


def partition(
    eligible: Mapping[str, Collection[Mode]], quota: Mapping[Mode, int] | None = None, *, seed: int = 0
) -> dict[str, Mode]:
    """Assign a mode to as many problems as the quotas ask for, exactly.

    Args:
        eligible: Of each problem's id, the modes it may be graded under: what it admits, or what was seen to work.
        quota: How many problems each mode gets; problems beyond the sum get none and are not in the result. None
            shares all problems out evenly among the modes that occur in `eligible`.
        seed: Chooses among the assignments. The same arguments in any order give the same result in every process.

    Returns:
        Problem id to mode, in the order of `eligible`.

    Raises:
        StarvedModeError: The quotas cannot be met.
        ModeAssignmentError: A quota is negative.

    Example:
        >>> partition({"a": {Mode.SENTINEL}, "b": {Mode.SENTINEL, Mode.EXIT_CODE}})
        {'a': <Mode.SENTINEL: 'sentinel'>, 'b': <Mode.EXIT_CODE: 'exit_code'>}
    """
    if quota is None:
        quota = even_quota(len(eligible), _occurring(eligible)) if eligible else {}
    for mode, count in quota.items():
        if count < 0:
            raise ModeAssignmentError(f"the quota of {mode} is {count}: a mode gets zero problems or more")
    ids = sorted(eligible)
    random.Random(seed).shuffle(ids)
    modes = [mode for mode in Mode if quota.get(mode, 0)]
    graph = _graph(ids, modes, eligible, quota)
    flow_value, flow = nx.maximum_flow(graph, SOURCE, SINK)
    if flow_value < sum(quota.values()):
        starved = _starved(graph, ids, modes, quota)
        raise StarvedModeError(_starvation(starved), starved)
    chosen = {
        name: modes[place]
        for node, name in enumerate(ids, start=len(modes))
        for place, carried in flow[node].items()
        if carried
    }
    return {name: chosen[name] for name in eligible if name in chosen}


def _occurring(eligible: Mapping[str, Collection[Mode]]) -> list[Mode]:
    occurring = {mode for modes in eligible.values() for mode in modes}
    return [mode for mode in Mode if mode in occurring] or list(LOOPHOLES)


def _graph(
    ids: Sequence[str], modes: Sequence[Mode], eligible: Mapping[str, Collection[Mode]], quota: Mapping[Mode, int]
) -> nx.DiGraph:
    """Nodes: modes 0, 1, ..., then problems in the order of `ids`. An edge without a capacity carries any flow."""
    graph = nx.DiGraph()
    graph.add_nodes_from((SOURCE, SINK))
    for place, mode in enumerate(modes):
        graph.add_edge(place, SINK, capacity=quota[mode])
    for node, name in enumerate(ids, start=len(modes)):
        graph.add_edge(SOURCE, node, capacity=1)
        graph.add_edges_from((node, place) for place, mode in enumerate(modes) if mode in eligible[name])
    return graph


def _starved(
    graph: nx.DiGraph, ids: Sequence[str], modes: Sequence[Mode], quota: Mapping[Mode, int]
) -> tuple[Starved, ...]:
    """The modes on the sink's side of a minimum cut, in groups that share problems.

    networkx cuts as near to the sink as can be: no mode is named that could have its quota beside the others'.
    """
    _, (_, cut_off) = nx.minimum_cut(graph, SOURCE, SINK)
    violators = [place for place in range(len(modes)) if place in cut_off]
    contested = graph.subgraph([*violators, *(node for place in violators for node in graph.pred[place])])
    groups = nx.connected_components(contested.to_undirected(as_view=True))
    starved = []
    for group in groups:
        competing = tuple(modes[place] for place in violators if place in group)
        problems = tuple(sorted(ids[node - len(modes)] for node in group if node >= len(modes)))
        lacking = sum(quota[mode] for mode in competing) - len(problems)
        starved.append(Starved(competing, problems, lacking))
    return tuple(starved)


def _starvation(starved: Sequence[Starved]) -> str:
    clauses = [
        f"{' and '.join(group.modes)} {'needs' if len(group.modes) == 1 else 'together need'} "
        f"{group.lacking + len(group.problems)} problems and {_few(group.problems)} eligible, {group.lacking} too few"
        for group in starved
    ]
    return "; ".join(clauses) + ": lower the quota, or make more problems eligible"


def _few(names: Sequence[str], shown: int = 6) -> str:
    if not names:
        return "none is"
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"only {len(names)} ({', '.join(names[:shown])}{more}) {'is' if len(names) == 1 else 'are'}"


def _prints(*programs: str) -> bool:
    """Whether a program calls print or names stdout; what does not parse is taken to print."""
    trees = [parsed(program) for program in programs]
    return any(
        tree is None
        or any(
            (isinstance(node, ast.Name) and node.id == "print")
            or (isinstance(node, ast.Attribute) and node.attr == "stdout")
            for node in ast.walk(tree)
        )
        for tree in trees
    )
