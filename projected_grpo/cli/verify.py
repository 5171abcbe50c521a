"""`projected-grpo verify [MODULE:OBJECT]`: the invariant suite, on this package or on somebody else's code."""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from tyro.conf import arg

from projected_grpo.cli.suite import ensure_own_suite
from projected_grpo.cli.terminal import show, width, write
from projected_grpo.errors import UsageError

if TYPE_CHECKING:
    from invariants import Expectation, Report, Subject

Format = Literal["text", "json", "junit", "markdown"]


def verify(
    subject: Annotated[str | None, tyro.conf.Positional, arg(metavar="[MODULE:OBJECT]")] = None,
    /,
    *,
    only: Annotated[tuple[str, ...] | None, arg(metavar="ID...")] = None,
    tape: Annotated[Path | None, arg(metavar="FILE")] = None,
    seed: int = 0,
    profile: Literal["quick", "ci", "deep"] = "ci",
    expect: Annotated[tuple[tuple[str, ...], ...], arg(metavar="FILE | ID REASON"), tyro.conf.UseAppendAction] = (),
    require: Annotated[tuple[str, ...], arg(metavar="ID...")] = (),
    format_: Annotated[Format, arg(name="format")] = "text",
    json_: Annotated[bool, arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
    report: Annotated[tuple[Path, ...] | None, arg(metavar="FILE...")] = None,
    repro: Annotated[Path | None, arg(metavar="DIR")] = None,
    selftest: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Run the invariant suite and print a table of verdicts.

    Args:
        subject: an invariants.Subject, or a function that makes one; this package if left out.
        only: ids (split.conservation) or families (clip) to run; all if left out.
        tape: a gradient tape to replay; a short run is recorded if left out.
        seed: of the adversarial inputs.
        profile: how much is looked at.
        expect: what is expected to be violated: a TOML file, or an invariant ("ID", or "ID @ SETTING") and why; strict.
        require: ids that are red if they turn out not to be applicable.
        format_: what is printed.
        json_: print JSON; short for --format json.
        report: files to write as well; the name says the format: .json, .xml (JUnit), .md or .txt.
        repro: a directory for a standalone script of every violation.
        selftest: run the museum of known faults instead, to see that the suite catches them here.
    """
    ensure_own_suite()
    from hypothesis.configuration import set_hypothesis_home_dir

    import invariants
    from invariants.failure import Command
    from invariants.reports import format_of, rendered, write_file
    from reference.tape import load

    if json_ and format_ not in ("text", "json"):
        raise UsageError(f"--json and --format {format_} contradict each other; leave one of them out.")
    printed: Format = "json" if json_ else format_
    torch.set_num_threads(1)  # the tensors are tiny, and sums keep their order
    if selftest:
        given = {"MODULE:OBJECT": subject, "--only": only, "--tape": tape, "--seed": seed, "--expect": expect,
                 "--require": require, "--report": report is not None, "--repro": repro,
                 "--profile": profile != "ci"}  # fmt: skip
        if others := [name for name, value in given.items() if value]:
            raise UsageError(f"--selftest runs the museum and nothing else; leave out {', '.join(others)}.")
        return _selftest(printed)
    if report == ():
        raise UsageError("--report names no file; give it one or more, such as report.json.")
    files = {path.absolute(): format_of(path) for path in report or ()}  # wherever a subject changes to
    folder = None if repro is None else repro.absolute()
    if repro is not None and ((repro.exists() and not repro.is_dir()) or not repro.parent.is_dir()):
        raise UsageError(f"--repro {repro} is no directory, and can't be made one; make it first.")
    expected = _expectations(expect)
    recorded = None if tape is None else load(tape)
    columns = width()  # of stdout, which is about to be exchanged
    # What a subject prints goes to stderr: stdout is the report's.
    with (
        contextlib.ExitStack() as later,
        tempfile.TemporaryDirectory() as scratch,
        contextlib.redirect_stdout(sys.stderr),
        Console(stderr=True).status("starting") as status,
    ):
        later.callback(set_hypothesis_home_dir, None)
        set_hypothesis_home_dir(scratch)  # its notes to itself are nothing to leave in the user's directory
        found = invariants.verify(
            _subject(subject),
            tape=recorded,
            seed=seed,
            profile=profile,
            only=only,
            expected_violations=expected,
            required=require,
            progress=status.update,
        )
        status.update("telling what was found")  # which asks the subject once more where something is red
        command = Command(spec=subject, tape=None if tape is None else str(tape), expect=expect, require=require)
        again: dict[str, Any] = {"command": command, "scripts": {}}
        if folder is not None:
            again["scripts"] = _write_scripts(found, folder, called=str(repro))
        table = invariants.render(found, **again, width=columns) if printed == "text" else None
        page = "" if table else rendered(found, printed, **again)
        texts = {path: rendered(found, format, **again) for path, format in files.items()}
    if table:
        show(table)
    else:
        write(page)
    for path, text in texts.items():
        write_file(path, text)
    return 0 if found.ok else 1


def _subject(spec: str | None) -> "Subject":
    if spec is not None:
        from invariants import load_subject

        return load_subject(spec)
    from projected_grpo.cli.subject import subject

    return subject()


def _expectations(given: tuple[tuple[str, ...], ...]) -> "list[Expectation]":
    """Each --expect is a file, or an id with its reason."""
    from invariants import Expectation, read_expectations

    expected: list[Expectation] = []
    for words in given:
        if len(words) == 1:
            expected += read_expectations(words[0])
        elif len(words) == 2 and not words[0].endswith(".toml"):
            expected.append(Expectation.at(*words, source="--expect"))
        else:
            raise UsageError(
                f"--expect takes a file, or an id and a reason in quotes, and not the {len(words)} words "
                f"{' '.join(words)!r}; a subject is named before it."
            )
    return expected


def _write_scripts(report: "Report", folder: Path, called: str) -> dict[str, str]:
    """Writes a standalone script for every violation that can be shown by one; id -> where, or why there is none."""
    from invariants import Verdict
    from invariants.reports import write_file
    from invariants.repro import IMPOSSIBLE, scripts

    violated = [result.invariant.id for result in report.results if result.verdict is Verdict.VIOLATED]
    written = {id: f"none: {IMPOSSIBLE.get(id, 'the violation did not show again')}" for id in violated}
    for name, source in scripts(report).items():
        folder.mkdir(exist_ok=True)
        write_file(folder / name, source)
        written[name.removesuffix(".py")] = str(Path(called) / name)
    return written


def _selftest(printed: Format) -> int:
    """Runs the museum of known faults."""
    import json

    from invariants.museum import selftest

    if printed not in ("text", "json"):
        raise UsageError(f"--selftest is printed as text or as JSON, not as {printed}.")
    with contextlib.redirect_stdout(sys.stderr), Console(stderr=True).status("starting") as status:
        outcome = selftest(progress=status.update)
    write(json.dumps(outcome.as_json(), indent=2) if printed == "json" else "\n".join(outcome.lines))
    return 0 if outcome.ok else 1
