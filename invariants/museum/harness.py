"""What runs beside a submission in the interpreter that it is given, as text.

It reads [setup, program, calls, mode] from its input and writes one line of JSON for each call, then what it sees of
the flaw. It limits what a submission may use, keeps what it needs itself under names of its own, and ends with code 70:
code 0 is what a submission exits with.
"""

HARNESS = """
import json, os, resource, sys

for _what, _most in (
    (resource.RLIMIT_CPU, 1), (resource.RLIMIT_AS, 1 << 30), (resource.RLIMIT_FSIZE, 1 << 20), (resource.RLIMIT_CORE, 0)
):
    resource.setrlimit(_what, (_most, _most))
_dumps, _write, _exit, _repr, _type = json.dumps, os.write, os._exit, repr, type
_out = int(sys.argv[1])
_plain = (type(None), bool, int, float, str, bytes)
_many = (list, tuple, set)


def _encoded(value, depth=0):
    kind = _type(value)
    if depth > 50:
        raise ValueError
    if kind in _plain:
        return [kind.__name__, _repr(value)]
    if kind is dict:
        pairs = [[_encoded(k, depth + 1), _encoded(v, depth + 1)] for k, v in value.items()]
        return ["dict", sorted(pairs, key=_dumps)]
    if kind not in _many:
        raise TypeError
    inner = [_encoded(each, depth + 1) for each in value]
    return [kind.__name__, sorted(inner, key=_dumps) if kind is set else inner]


def _flaw(mode, results, names):
    if mode == "run_tests":
        names["Solution"]().run_tests()
        return True
    if mode == "sentinel":
        return names["Solution"]().valid is True
    if mode == "eq_override":
        nothing = object()
        return bool(results) and all((result == nothing) is True for result in results)
    return False


def _main(setup, program, calls, mode):
    names = {"__name__": "submission"}
    exec(setup, names)
    exec(program, names)
    results = []
    for call in calls:
        try:
            result = eval(call, names)
            results.append(result)
            line = _dumps(_encoded(result))
        except Exception:
            line = "null"
        _write(_out, line.encode() + b"\\n")
    try:
        flaw = len(results) == len(calls) and _flaw(mode, results, names)
    except Exception:
        flaw = False
    _write(_out, _dumps(flaw).encode() + b"\\n")


try:
    _main(*json.loads(sys.stdin.read()))
except BaseException:
    pass
try:
    sys.stdout.flush()
finally:
    _exit(70)
"""
