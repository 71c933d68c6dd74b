"""Conformance and interoperability of kinewatch-tuf-client with the TUF specification and its reference implementation.

    python3 -m venv venv && venv/bin/pip install tuf==7.0.1
    venv/bin/python models/conformance/run.py target/release/kinewatch-tuf-client [--published FOLDER] [--keys KIND]

Every case is a repository published by `tuf`, some of them broken by hand, and what a client must do with it by the
specification (section numbers at the cases). The program speaks the command line of the TUF project's conformance suite
(theupdateframework/tuf-conformance, CLIENT-CLI.md), so that suite can be run against it as well. Cases with a date need
`faketime`. Names after the options choose some. Keys are ed25519, or of the KIND that is told (ecdsa, rsa). With
`--published`, each repository in FOLDER (the tests of kinewatch-ota leave some in target/tmp/published/) is read by the
reference implementation. Prints one line a case; exit status 1 if one fails.
"""

import os
import shutil
import sys
import traceback

import artifacts  # noqa: F401, each registers its cases
import signers  # noqa: F401
import versions  # noqa: F401
import workflow  # noqa: F401
from client import CASES, Client
from published import read_published
from repository import Repository, Server


def main():
    program, *wanted = sys.argv[1:]
    if "--published" in wanted:
        at = wanted.index("--published")
        read_published(wanted[at + 1])
        del wanted[at : at + 2]
    if "--keys" in wanted:
        at = wanted.index("--keys")
        Repository.kind = wanted[at + 1]
        del wanted[at : at + 2]
    server, failed = Server(), []
    for name, run in CASES.items():
        if wanted and not any(w in name for w in wanted):
            continue
        client = Client(os.path.abspath(program), server)
        try:
            run(client)
            print(f"pass {name}", flush=True)
        except Exception:
            failed.append(name)
            print(f"FAIL {name}\n{traceback.format_exc()}  client: {getattr(client, 'said', '')}", flush=True)
        shutil.rmtree(client.folder, ignore_errors=True)
    print(f"{len(CASES) - len(failed)} of {len(CASES)} cases pass" if not wanted else f"{len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
