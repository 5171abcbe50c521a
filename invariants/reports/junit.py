"""A report as JUnit XML: a test case per invariant, for whatever collects test results."""

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from invariants.failure import Command, failure
from invariants.reports.rows import WHY, conclusion, head, provenance, row, writable
from invariants.verdict import Report, Result, Verdict

# The element that says what is not simply passed. JUnit knows no expected failure; skipped is what pytest makes of one.
OUTCOMES = {
    Verdict.VIOLATED: "failure", Verdict.UNEXPECTEDLY_HOLDS: "failure", Verdict.VACUOUS: "failure",
    Verdict.ERROR: "error", Verdict.EXPECTED_VIOLATION: "skipped", Verdict.NOT_APPLICABLE: "skipped",
}  # fmt: skip


def as_junit(
    report: Report,
    *,
    command: Command | None = None,
    scripts: Mapping[str, str] | None = None,
) -> str:
    """The report as XML, in ASCII. Without times, so that the same run gives the same bytes.

    A run in which nothing was applicable has one more case, which fails: skipped cases alone would pass.
    """
    suite = ET.Element("testsuite", name=writable(f"{report.subject} ({report.dtype}): {head(report)}"))
    properties = ET.SubElement(suite, "properties")
    counts = {"ran": report.ran, "applicable": report.applicable, "total": report.total}
    for name, value in {**counts, "dtype": report.dtype, **provenance(report)}.items():
        ET.SubElement(properties, "property", name=name, value=writable(str(value)))
    for result in report.results:
        again = (command or Command()).again(report, result)
        suite.append(_case(report, result, again, (scripts or {}).get(result.invariant.id)))
    if not report.applicable:
        case = ET.SubElement(suite, "testcase", classname=writable(report.subject), name="something applies")
        ET.SubElement(case, "failure", type="nothing applicable", message=conclusion(report))
    cases = suite.findall("testcase")
    for plural, tag in {"failures": "failure", "errors": "error", "skipped": "skipped"}.items():
        suite.set(plural, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="us-ascii", xml_declaration=True)
    return document.decode()


def _case(report: Report, result: Result, again: str, script: str | None) -> ET.Element:
    invariant, cells = result.invariant, row(result)
    case = ET.Element("testcase", classname=writable(f"{report.subject}.{invariant.family}"), name=invariant.id)
    if (tag := OUTCOMES.get(result.verdict)) is not None:
        outcome = ET.SubElement(case, tag, message=writable(_message(result)))
        if not result.verdict.green:
            outcome.set("type", str(result.verdict))
            outcome.text = writable(failure(result, again, script=script))
    if result.worst.measured is not None:
        figures = ", ".join(f"{name} {cells[name]}" for name in ("residual", "bound", "margin", "settings", "cases"))
        ET.SubElement(case, "system-out").text = f"{result.verdict}: {figures}; {cells[WHY]}"
    return case


def _message(result: Result) -> str:
    worst = result.worst
    said = worst.reason or worst.counterexample or (worst.measured.where if worst.measured else "")
    return f"{result.verdict}: {said}" if said else str(result.verdict)
