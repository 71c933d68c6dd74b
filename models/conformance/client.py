"""The client under test, as a program with its folders; and the register of cases."""

import json
import os
import subprocess
import tempfile

from repository import Repository

CASES = {}


def case(function):
    CASES[function.__name__] = lambda client: function(client)
    return function


def cases(**variants):
    """One case a variant, with its value as the second argument."""

    def register(function):
        for name, value in variants.items():
            CASES[f"{function.__name__}[{name}]"] = lambda client, value=value: function(client, value)
        return function

    return register


class Client:
    def __init__(self, program, server):
        self.program, self.server = program, server
        self.folder = tempfile.mkdtemp(prefix="kinewatch-tuf-")
        self.metadata, self.artifacts = (os.path.join(self.folder, n) for n in ("metadata", "artifacts"))
        os.mkdir(self.metadata)
        os.mkdir(self.artifacts)

    def use(self, repository, root=None):
        self.url = self.server.serve(repository)
        path = os.path.join(self.folder, "initial.json")
        with open(path, "wb") as f:
            f.write(root or repository.served["root"][1])
        return self.run(["--metadata-dir", self.metadata, "init", path])

    def run(self, arguments, time=None, kill_after=60):
        command = (["faketime", f"{time:%Y-%m-%d %H:%M:%S}"] if time else []) + [self.program, *arguments]
        settings = {**os.environ, "TZ": "UTC"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=kill_after, env=settings)
        self.said = done.stderr.strip()
        assert done.returncode in (0, 1), f"exit status {done.returncode}: {self.said}"
        assert "panicked" not in self.said, self.said
        return done.returncode

    def refresh(self, time=None):
        return self.run(["--metadata-dir", self.metadata, "--metadata-url", f"{self.url}/metadata", "refresh"], time)

    def download(self, *paths, time=None, kill_after=60):
        where = ["--metadata-dir", self.metadata, "--metadata-url", f"{self.url}/metadata/"]
        what = ["--target-base-url", f"{self.url}/targets/", "--target-dir", self.artifacts]
        what += [argument for path in paths for argument in ("--target-name", path)]
        return self.run([*where, *what, "download"], time, kill_after)

    def trusted(self):
        """Role to version, of every .json file in the folder of trusted metadata. `.new-` is what is not there yet."""
        files = [n for n in sorted(os.listdir(self.metadata)) if n.endswith(".json") and not n.startswith(".new-")]
        names = [n.removesuffix(".json") for n in files]
        return {name: json.loads(self.bytes(name))["signed"]["version"] for name in names}

    def bytes(self, role):
        with open(os.path.join(self.metadata, f"{role}.json"), "rb") as f:
            return f.read()

    def downloaded(self):
        found = []
        for folder, _, names in os.walk(self.artifacts):
            for name in names:
                with open(os.path.join(folder, name), "rb") as f:
                    found.append(f.read())
        return sorted(found)


def all_at(version):
    return {"root": version, "snapshot": version, "targets": version, "timestamp": version}


def started(client, **options):
    """A client that trusts version 1 of everything."""
    repository = Repository(**options)
    assert client.use(repository) == 0
    assert repository.requests == []
    assert client.refresh() == 0, client.said
    assert client.trusted() == all_at(1)
    repository.requests.clear()
    return repository
