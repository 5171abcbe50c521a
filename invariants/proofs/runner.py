"""Running proofs, each with its time; those that take a solver long in processes of their own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Literal

from invariants.proofs.floats import SolverMissingError, solver_version
from invariants.proofs.registry import HOW, Proof, RefutedError

Verdict = Literal["proved", "refuted", "no answer", "skipped"]
TIMEOUT = 840.0  # seconds for one lemma; all together are meant to end within a quarter of an hour


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one proof."""

    name: str
    theorem: str
    statement: str
    how: str
    by: str
    """The program that decided the steps, with its version."""
    verdict: Verdict
    steps: int = 0
    seconds: float = 0.0
    reason: str = ""
    supports: tuple[str, ...] = ()
    extends: str = ""


def decided_by(proof: Proof) -> str:
    """The program that decides this proof's steps, with its version."""
    if proof.kind == "float lemma":
        return f"z3 {solver_version() or '(not installed)'}"
    if proof.name.startswith("float."):  # an example, run in a float type
        return f"torch {version('torch').partition('+')[0]}"
    return f"sympy {version('sympy')}"


def outcome(proof: Proof, verdict: Verdict, *, steps: int = 0, seconds: float = 0.0, reason: str = "") -> Outcome:
    """An outcome with everything that the proof says of itself."""
    return Outcome(
        name=proof.name, theorem=proof.theorem, statement=proof.statement, how=HOW[proof.kind], by=decided_by(proof),
        verdict=verdict, steps=steps, seconds=seconds, reason=reason, supports=proof.supports, extends=proof.extends,
    )  # fmt: skip


def prove(proof: Proof) -> Outcome:
    """Runs one proof here."""
    began = time.perf_counter()
    verdict: Verdict = "proved"
    steps, reason = 0, ""
    try:
        steps = proof.demonstrate()
    except RefutedError as error:
        verdict, reason = "refuted", str(error)
    except SolverMissingError as error:
        verdict, reason = "skipped", str(error)
    except (TimeoutError, ValueError, NotImplementedError) as error:  # undecided is not proved
        verdict, reason = "no answer", f"{type(error).__name__}: {error}"
    return outcome(proof, verdict, steps=steps, seconds=time.perf_counter() - began, reason=reason)


def prove_apart(proof: Proof, timeout: float = TIMEOUT) -> Outcome:
    """Runs one proof in a process of its own, which is ended when it takes too long: a solver may never answer."""
    command = [sys.executable, "-m", "invariants.proofs", "--inline", "--only", proof.name, "--json", "-"]
    began = time.perf_counter()
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        [found] = json.loads(finished.stdout)["proofs"]
    except subprocess.TimeoutExpired:
        return outcome(proof, "no answer", seconds=timeout, reason=f"no answer within {timeout:g} s")
    except ValueError:
        said = finished.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return outcome(proof, "no answer", seconds=time.perf_counter() - began, reason=f"the process failed: {said[0]}")
    return outcome(proof, found["verdict"], steps=found["steps"], seconds=found["seconds"], reason=found["reason"])


def prove_all(proofs: Iterable[Proof], *, inline: bool = False, timeout: float = TIMEOUT) -> Iterator[Outcome]:
    """Runs proofs and yields outcomes as they are there: slow ones apart, two at a time, the longest first."""
    chosen = list(proofs)
    apart = [] if inline or solver_version() is None else [p for p in chosen if p.slow]
    apart.sort(key=lambda p: not p.name.endswith("float32"))
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(prove_apart, p, timeout) for p in apart]
        yield from (prove(p) for p in chosen if p not in apart)
        yield from (future.result() for future in running)


def as_json(outcomes: Iterable[Outcome]) -> str:
    """A document with every outcome."""
    versions = {"sympy": version("sympy"), "z3": solver_version()}
    return json.dumps({"schema": 1, "versions": versions, "proofs": [asdict(o) for o in outcomes]}, indent=2) + "\n"
