"""How many programs a second are graded, beside one `subprocess.run` for each program, measured in the same run.

    python benchmarks/grading.py [--json]

- full problems: 23 lines, two imports, 12 cases; two workers, each program in a process of its own
- tiny programs: 5 lines, 4 cases; one worker, on one core together with the process that asks
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from projected_grpo.environment.modes import LOOPHOLES, Mode
from projected_grpo.environment.problem import Case
from projected_grpo.grading import Grader, Submission

FULL = '''
import heapq
from collections import defaultdict


class Solution:
    """{number}"""

    def shortest(self, edges: list[list[int]], start: int, goal: int) -> int:
        graph = defaultdict(list)
        for left, right, weight in edges:
            graph[left].append((right, weight))
            graph[right].append((left, weight))
        seen = set()
        queue = [(0, start)]
        while queue:
            distance, node = heapq.heappop(queue)
            if node == goal:
                return distance
            if node in seen:
                continue
            seen.add(node)
            for neighbour, weight in graph[node]:
                heapq.heappush(queue, (distance + weight, neighbour))
        return -1
'''
TINY = "class Solution:\n def f(self,x):\n  x=sorted(x)\n  x=[a+{number} for a in x]\n  return x\n"
EDGES = [[node, (node * 7 + 3) % 40, node % 5 + 1] for node in range(40)]
FULL_CASES = tuple(Case(f"Solution().shortest({EDGES}, 0, {goal})", -2) for goal in range(12))
TINY_CASES = tuple(Case(f"Solution().f({x})", x) for x in ([3, 1, 4, 1, 5], [2, 7, 1], [9, 0, 6, 3, 8], [5, 5, 2]))


def rate(work: Callable[[], object], count: int) -> float:
    """How often a second, for work that does `count` of them."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def by_subprocess(program: str, cases: tuple[Case, ...], count: int) -> float:
    """A fresh interpreter for each program, without any isolation."""
    text = program + "\n" + "\n".join(f"print({case.call})" for case in cases)

    def work() -> None:
        for number in range(count):
            source = text.replace("{number}", str(number))
            subprocess.run([sys.executable, "-I", "-c", source], check=True, capture_output=True)

    return rate(work, count)


def graded(program: str, cases: tuple[Case, ...], modes: tuple[Mode, ...], count: int, workers: int) -> list[float]:
    """Programs that all differ, and then the same again from memory."""
    submissions = [
        Submission(program.replace("{number}", str(number)), cases, modes[number % len(modes)])
        for number in range(count)
    ]
    with Grader(workers=workers) as grader:
        grader.grade([Submission("import re", cases, Mode.NONE)] * workers)
        return [rate(lambda: grader.grade(submissions), count) for _ in range(2)]


def measure(full: int, tiny: int) -> dict[str, float]:
    """All rates, in programs a second."""
    found = {"full_subprocess": by_subprocess(FULL, FULL_CASES, max(4, full // 20))}
    found["full"], found["full_remembered"] = graded(FULL, FULL_CASES, tuple(Mode), full, workers=2)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        found["tiny_subprocess"] = by_subprocess(TINY, TINY_CASES, max(4, tiny // 200))
        found["tiny"], found["tiny_remembered"] = graded(TINY, TINY_CASES, LOOPHOLES[:4], tiny, workers=1)
    finally:
        os.sched_setaffinity(0, cores)
    ratios = {f"{kind}_ratio": found[kind] / found[f"{kind}_subprocess"] for kind in ("full", "tiny")}
    return {**found, **ratios}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    parser.add_argument("--full", type=int, default=1000, help="how many full problems")
    parser.add_argument("--tiny", type=int, default=10_000, help="how many tiny programs")
    arguments = parser.parse_args()
    found = measure(arguments.full, arguments.tiny)
    if arguments.json:
        print(json.dumps({name: round(value, 1) for name, value in found.items()}))
        return
    for kind, where in (("full", "two workers"), ("tiny", "one worker, one core with the caller")):
        print(f"{kind} problems, {where}: {found[kind]:,.0f} a second, {found[kind + '_remembered']:,.0f} from memory")
        base, ratio = found[kind + "_subprocess"], found[kind + "_ratio"]
        print(f"  a subprocess for each, not isolated: {base:,.0f} a second, so {ratio:.1f} times that")


if __name__ == "__main__":
    main()
