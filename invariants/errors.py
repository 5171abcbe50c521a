"""Every error that the suite raises on purpose; each message names the thing and the mend."""


class SuiteError(ValueError):
    """Base of the suite's errors; the command line turns it into one sentence and exit code 2."""


class SubjectImportError(SuiteError):
    """`module:object` names no subject that can be imported."""


class SubjectContractError(SuiteError):
    """A subject's callable takes or returns something other than its capability says."""


class UnknownInvariantError(SuiteError):
    """An id that no invariant has, in `only`, `claims` or `expected_violations`."""


class ExpectationError(SuiteError):
    """What is expected to be violated is incomplete, mistyped or said twice, or its file can't be read."""


class ReportPathError(SuiteError):
    """A place where no report can be written, or a name that says no format."""


class UnusableTapeError(SuiteError):
    """A whole tape whose parts do not fit together, or that holds what no run can have fed to an optimizer."""


class OptimizerImportError(SuiteError):
    """A name that no optimizer has, or `module:Class` that can't be imported or makes none."""
