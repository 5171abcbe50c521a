"""From what a model writes to the program in it, and whether that program has the form that was asked for.

Both read hostile text: they take time linear in its length and end in an answer, never in an exception.
"""

import ast
import warnings

PYTHON_FENCES = frozenset({"python", "py", "python3"})
LONGEST_PROGRAM = 32_768  # characters; longer ones have no form. Bounds the time and the depth of the parser.
FENCE = "```"


def program_of(completion: str) -> str:
    """The last block fenced as Python; if there is none, the last fenced without a language; if none, the whole text.

    A block that is never closed, as in a completion that was cut off, reaches to the end.
    """
    named: str | None = None
    unnamed: str | None = None
    for language, lines in _blocks(completion):
        if language in PYTHON_FENCES:
            named = "\n".join(lines)
        elif not language:
            unnamed = "\n".join(lines)
    if named is not None:
        return named
    return completion if unnamed is None else unnamed


def _blocks(text: str) -> list[tuple[str, list[str]]]:
    """Fenced blocks in order: language and lines. A fence closes with at least as many backticks as it opened with."""
    blocks: list[tuple[str, list[str]]] = []
    opened = 0  # backticks of the open fence, 0 outside
    for line in text.split("\n"):
        bare = line.strip()
        ticks = len(bare) - len(bare.lstrip("`"))
        if opened:
            if ticks >= opened and ticks == len(bare):
                opened = 0
            else:
                blocks[-1][1].append(line)
        elif ticks >= len(FENCE):
            opened = ticks
            blocks.append((bare[ticks:].strip().lower(), []))
        elif bare.rpartition(FENCE)[2].lower() in PYTHON_FENCES and FENCE in bare:  # "Here it is: ```python"
            opened = len(FENCE)
            blocks.append((bare.rpartition(FENCE)[2].lower(), []))
    return blocks


def parsed(program: str) -> ast.Module | None:
    """The syntax tree, or None for what does not parse, for what is too long and for what is nested too deeply.

    CPython's parser stops at its own limits on nesting with one of the exceptions caught here; the limit on length
    keeps what is left of its recursion far from the end of the stack.
    """
    if len(program) > LONGEST_PROGRAM:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a strange escape is the submission's business
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def solution_class(tree: ast.Module) -> ast.ClassDef | None:
    """The last class named Solution at the top level, which is the one that is run."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Solution"]
    return classes[-1] if classes else None


def method(solution: ast.ClassDef, function: str) -> ast.FunctionDef | None:
    """The last method of that name."""
    found = [node for node in solution.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return found[-1] if found else None


def well_formed(program: str, function: str) -> bool:
    """Whether a program parses and defines, at its top level, a class Solution with that method in its body."""
    tree = parsed(program)
    solution = None if tree is None else solution_class(tree)
    return solution is not None and method(solution, function) is not None
