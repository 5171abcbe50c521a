"""What runs inside the isolation: the standard library alone, loaded by a bare interpreter, never by the caller's.

A worker is a small process that forks once for each submission (`worker`). It is put behind namespaces (`isolation`);
each fork gives up what it may still do (`confinement`, `seccomp`), reads its request, and only then runs what it was
sent: one program (`runner`), or many that an allow-list of syntax proves harmless (`allowlist`, `batch`).
"""
