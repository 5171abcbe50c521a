"""What `mutmut run` found: the score of each module, and every survivor against the list of explained ones.

python tests/mutants.py                            prints it; exit code 1 below 90 % or with an unexplained survivor
python tests/mutants.py --write docs/mutation.md   also puts it between the markers of that file
"""

import argparse
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

FLOOR = 0.9
EXPLAINED = Path(__file__).parent / "data" / "surviving-mutants.toml"
BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"
NOTICED = {"killed", "timeout", "segfault"}


@dataclass(frozen=True, order=True)
class Mutant:
    """A change that names itself, since mutmut's numbers move with every edit of the function."""

    where: str  # module.Class.function
    was: str
    becomes: str


def outcomes() -> dict[Mutant, str]:
    """Every mutant of the last run and what became of it; without the diff where a test noticed it."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    found: dict[Mutant, str] = {}
    for meta in sorted(Path("mutants").rglob("*.py.meta")):
        path = meta.relative_to("mutants").with_suffix("")
        data = SourceFileMutationData(path=path)
        data.load()
        for key, exit_code in data.exit_code_by_key.items():
            status = status_by_exit_code[exit_code]
            function, owner = orig_function_and_class_names_from_key(key)
            where = ".".join([*path.with_suffix("").parts, *([owner] if owner else []), function])
            if status in NOTICED:
                found[Mutant(where, "", key)] = status
            else:
                lines = get_diff_for_mutant(key, path=path).splitlines()[2:]
                was, becomes = (" ".join(x[1:].strip() for x in lines if x[0] == sign) for sign in "-+")
                found[Mutant(where, was, becomes)] = status
    return found


def explained(path: Path = EXPLAINED) -> dict[Mutant, str]:
    """The survivors that change nothing that can be observed, or nothing that is promised, each with its reason."""
    reasons = {}
    for group in tomllib.loads(path.read_text())["group"]:
        for entry in group["mutants"]:
            reasons[Mutant(*entry)] = group["why"]
    return reasons


def module_of(where: str) -> str:
    return ".".join(where.split(".")[:2])


def code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def rows(found: dict[Mutant, str]) -> list[str]:
    """A table with a line for each module, and one for all."""
    total, noticed = Counter(module_of(m.where) for m in found), Counter[str]()
    noticed.update(module_of(m.where) for m, status in found.items() if status in NOTICED)
    lines = ["| module | mutants | noticed | survived | score |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [row(f"`{name}`", total[name], noticed[name]) for name in sorted(total)]
    return [*lines, row("all", total.total(), noticed.total())]


def listed(reasons: dict[Mutant, str]) -> list[str]:
    """The explained survivors, each with its reason below it."""
    return [f"- `{m.where}`: {code(m.was)} → {code(m.becomes)}  \n  {why}" for m, why in sorted(reasons.items())]


def row(name: str, total: int, noticed: int) -> str:
    return f"| {name} | {total} | {noticed} | {total - noticed} | {noticed / total:.1%} |"


def problems(found: dict[Mutant, str], reasons: dict[Mutant, str]) -> Iterable[str]:
    """Why the run is not good enough, one line each."""
    survivors = {m: status for m, status in found.items() if status not in NOTICED}
    if not found or any(status == "not checked" for status in survivors.values()):
        yield "Not every mutant was tried; run `mutmut run` to its end first."
    elif (score := 1 - len(survivors) / len(found)) < FLOOR:
        yield f"Tests notice {score:.1%} of all mutants; at least {FLOOR:.0%} are asked for."
    for m, status in survivors.items():
        if m not in reasons and status != "not checked":
            yield f"unexplained ({status}) in {m.where}\n    - {m.was}\n    + {m.becomes}"
    for m in reasons.keys() - survivors.keys():
        yield f"explained, but no survivor in {m.where}\n    - {m.was}\n    + {m.becomes}"


def main() -> int:
    parser = argparse.ArgumentParser(description="The mutation score, and the survivors that nobody has explained.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the markers of FILE")
    arguments = parser.parse_args()
    found, reasons = outcomes(), explained()
    print("\n".join(rows(found)))
    if arguments.write:
        told = [f"With mutmut {version('mutmut')}:", "", *rows(found), "", "## Survivors", "", *listed(reasons)]
        text = "\n".join(told)
        before, rest = arguments.write.read_text().split(BEGIN)
        after = rest.split(END)[1]
        arguments.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    wrong = sorted(problems(found, reasons))
    print("\n".join(wrong) or f"All {len(reasons)} survivors are explained.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
