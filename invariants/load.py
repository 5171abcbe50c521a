"""Finding a subject by name: `module:object`."""

import importlib
import sys
from pathlib import Path

from invariants.errors import SubjectImportError, SuiteError
from invariants.subject import Subject


def load_object(spec: str, what: str, error: type[SuiteError] = SubjectImportError) -> object:
    """Imports `module:object` and returns the object there; the current directory is searched too.

    Args:
        spec: what to import.
        what: how the object is called in what goes wrong, such as "the Subject".
        error: what is raised.

    Raises:
        error: the name is malformed, the module does not import, or has no such object.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise error(f"{spec!r} is not of the form module:object, such as mypackage.routing:subject.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # at the end: a file there called like an installed package must not replace it
    try:
        found: object = importlib.import_module(module_name)
    except SystemExit as exited:  # a script without a main guard; its exit code must not become ours
        raise error(
            f"The module {module_name!r} of {spec!r} ended the interpreter while it was imported; put what it runs "
            "under `if __name__ == '__main__':`."
        ) from exited
    except Exception as failed:  # whatever the module raises while it is imported, SyntaxError included
        raise error(
            f"The module {module_name!r} of {spec!r} does not import: {type(failed).__name__}: {in_a_line(failed)}"
        ) from failed
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise error(f"{module_name!r} imports, but has no {path!r}; name the object that is {what}.")
        found = getattr(found, attribute)
    return found


def load_subject(spec: str) -> Subject:
    """Imports `module:object` and returns the Subject there.

    The object may be a Subject or a function of no arguments that makes one.

    Raises:
        SubjectImportError: the name is malformed, the module does not import, or there is no Subject.
    """
    found = load_object(spec, "the Subject")
    if callable(found) and not isinstance(found, Subject):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise SubjectImportError(
                f"{spec} was called to make a subject and raised {type(error).__name__}: {in_a_line(error)}"
            ) from error
    if not isinstance(found, Subject):
        raise SubjectImportError(
            f"{spec} is a {type(found).__name__}, not an invariants.Subject or a function making one."
        )
    return found


def in_a_line(error: BaseException) -> str:
    """What an exception says, without its line breaks."""
    return " ".join(str(error).split())
