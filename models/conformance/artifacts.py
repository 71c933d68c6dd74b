"""Artifacts, and the delegations that lead to them."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
from datetime import timedelta

from client import all_at, case, cases, started
from repository import Repository, now
from tuf.api.metadata import MetaFile

# Artifacts (5.7).


@cases(plain="artifact.txt", folders="path/to/an/artifact.txt", odd="a b/ä?#%2F&=+.bin")
def download(client, path):
    repository = started(client)
    repository.add_artifact(path, b"content")
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    assert client.downloaded() == []
    assert client.download(path) == 0, client.said
    assert client.downloaded() == [b"content"]
    assert client.download(path) == 0
    assert len(repository.fetched) == 1, "what is there is not fetched again"
    assert client.downloaded() == [b"content"]


@cases(sha512=("sha512",), both=("sha256", "sha512"))
def hash_algorithms(client, algorithms):
    repository = started(client)
    repository.add_artifact("artifact", b"content", hashes=algorithms)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("artifact") == 0, client.said
    assert client.downloaded() == [b"content"]
    repository.artifacts["artifact"] = b"CONTENT"
    shutil.rmtree(client.artifacts)
    assert client.download("artifact") == 1


@cases(refuses="odd", takes="good")
def hash_algorithm_that_is_unknown(client, path):
    """The target cannot be verified; its neighbour can."""
    repository = started(client)
    repository.add_artifact("odd", b"odd")
    repository.add_artifact("good", b"good")
    repository.targets.targets["odd"].hashes = {"whirlpool": "1" * 128}
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    assert client.download(path) == (1 if path == "odd" else 0), client.said
    assert client.downloaded() == ([] if path == "odd" else [b"good"])


@case
def several_in_one_run(client):
    """In their order, up to the first that cannot be had."""
    repository = started(client)
    for name in ("first", "second", "third"):
        repository.add_artifact(name, name.encode())
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("second", "first") == 0, client.said
    assert [name for name, _ in repository.fetched] == ["second", "first"]
    shutil.rmtree(client.artifacts)
    assert client.download("first", "missing", "third") == 1
    assert client.downloaded() == [b"first"]
    assert client.download() == 1, "no target was named"


@cases(same_length=b"CONTENT", longer=b"content and more", shorter=b"con", empty=b"")
def substituted_artifact(client, malicious):
    repository = started(client)
    repository.add_artifact("first", b"content")
    repository.add_artifact("second", b"content")
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("first") == 0, client.said
    repository.artifacts["first"] = repository.artifacts["second"] = malicious
    client.download("first")
    assert client.downloaded() == [b"content"]
    assert client.download("second") == 1
    assert client.downloaded() == [b"content"]


@case
def an_artifact_that_changes(client):
    repository = started(client)
    for i in range(6):
        repository.add_artifact("artifact", f"content {i}".encode())
        repository.publish("targets", "snapshot", "timestamp")
        assert client.download("artifact") == 0, client.said
        assert client.downloaded() == [f"content {i}".encode()]
        repository.artifacts["artifact"] = b"malicious"
        repository.publish("targets", "snapshot", "timestamp")
        client.download("artifact")
        assert client.downloaded() == [f"content {i}".encode()]


@case
def killed_at_any_time(client):
    """What is trusted never goes back, and the next run goes on."""
    repository = started(client)
    repository.add_artifact("artifact", os.urandom(300_000))
    times = random.Random(1)
    before = client.trusted()
    for _ in range(60):
        repository.publish("root", "targets", "snapshot", "timestamp")
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.download("artifact", kill_after=times.uniform(0.001, 0.08))
        after = client.trusted()
        assert all(after[role] >= version for role, version in before.items()), (before, after)
        assert client.downloaded() in ([], [repository.artifacts["artifact"]])
        before = after
    assert client.download("artifact") == 0, client.said
    assert client.trusted() == all_at(61)


@cases(up="../escaped", within="a/../../escaped", absolute="/tmp/escaped", dot="./escaped", back="..\\escaped")
def artifact_name_that_leads_out(client, path):
    repository = started(client)
    repository.add_artifact(path, b"content")
    repository.publish("targets", "snapshot", "timestamp")
    client.download(path)
    outside = [f for f in os.listdir(client.folder) if f not in ("metadata", "artifacts", "initial.json")]
    assert outside == []


@case
def without_consistent_snapshots(client):
    repository = Repository()
    repository.root.consistent_snapshot = False
    repository.publish("root")
    repository.add_artifact("path/artifact", b"content")
    repository.publish("targets", "snapshot", "timestamp")
    client.use(repository)
    assert client.download("path/artifact") == 0, client.said
    expected = [("root", 2), ("root", 3), ("timestamp", None), ("snapshot", None), ("targets", None)]
    assert repository.names_requested() == expected
    assert repository.fetched == [("path/artifact", None)]
    assert client.downloaded() == [b"content"]


# Delegations (5.6.7). Edges are (delegator, role, options); expected is the order of requests.

GRAPHS = {
    "one": ([("targets", "A", {})], "A"),
    "siblings": ([("targets", "A", {}), ("targets", "B", {})], "AB"),
    "two_levels": ([("targets", "A", {}), ("targets", "B", {}), ("B", "C", {})], "ABC"),
    "depth_first": ([("targets", "A", {}), ("targets", "B", {}), ("A", "C", {}), ("A", "D", {})], "ACDB"),
    "three_levels": ([("targets", "A", {}), ("targets", "B", {}), ("A", "C", {}), ("C", "D", {})], "ACDB"),
    "terminating": (
        [("targets", "A", {}), ("targets", "B", {}), ("A", "C", {"terminating": True}), ("A", "D", {})],
        "AC",
    ),
    "below_terminating": (
        [("targets", "A", {}), ("targets", "B", {}), ("A", "C", {"terminating": True}), ("C", "D", {})],
        "ACD",
    ),
    "other_paths": ([("targets", "A", {"paths": ["*.py"]}), ("targets", "B", {}), ("A", "C", {})], "B"),
    "other_paths_below": (
        [("targets", "A", {}), ("targets", "B", {}), ("A", "C", {"paths": ["*.py"]}), ("C", "D", {})],
        "AB",
    ),
    "terminating_for_other_paths": (
        [("targets", "A", {"paths": ["*.py"], "terminating": True}), ("targets", "B", {})],
        "B",
    ),
    "cycle": (
        [("targets", "A", {}), ("targets", "B", {}), ("B", "C", {}), ("C", "D", {}), ("D", "B", {})],
        "ABCD",
    ),
    "two_delegators": ([("targets", "A", {}), ("targets", "B", {}), ("B", "C", {}), ("A", "C", {})], "ACB"),
    "two_delegators_other_paths": (
        [("targets", "A", {}), ("targets", "B", {}), ("B", "C", {}), ("A", "C", {"paths": ["*.py"]})],
        "ABC",
    ),
    "hash_prefix": (
        [("targets", "A", {"prefixes": ["0", "41"]}), ("targets", "B", {"prefixes": ["ff", "HASH"]})],
        "B",
    ),
}


@cases(**GRAPHS)
def delegation_graph(client, graph):
    edges, expected = graph
    repository = Repository()
    client.use(repository)
    modified = {}
    for delegator, name, options in edges:
        if "prefixes" in options:
            digest = hashlib.sha256(b"missing").hexdigest()
            other = "0" if digest[0] != "0" else "1"
            prefixes = [digest[:3] if p == "HASH" else other + p for p in options["prefixes"]]
            options = {"prefixes": prefixes}
        repository.delegate(delegator, name, **options)
        modified[name] = True
    repository.publish(*modified, bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    assert repository.names_requested()[-1][0] == "targets", "refresh does not look at delegations"
    repository.requests.clear()
    assert client.download("missing") == 1
    assert repository.names_requested()[2:] == [(name, 1) for name in expected]
    assert sorted(client.trusted()) == sorted([*expected, "root", "snapshot", "targets", "timestamp"])


@cases(
    top=("index", True, ""),
    wildcard=("notes.txt", True, "A"),
    two_levels=("models/falls/bundle", True, "BC"),
    suffix=("models/fights/bundle.zst", True, "BD"),
    not_in_every_link=("models/other/bundle.zst", False, "B"),
)
def delegated_artifact(client, what):
    """Each link of a chain must cover the path: the last one is D's, but D is given only models/fights."""
    path, found, visited = what
    repository = Repository()
    client.use(repository)
    repository.delegate("targets", "A", ["*.txt", "*.pdf"])
    repository.delegate("targets", "B", ["models/*/*"])
    repository.delegate("B", "C", ["models/falls/*"])
    repository.delegate("B", "D", ["models/fights/*.zst"])
    owners = {"index": "targets", "notes.txt": "A", "models/falls/bundle": "C"}
    owners |= {"models/fights/bundle.zst": "D", "models/other/bundle.zst": "D"}
    for artifact, role in owners.items():
        repository.add_artifact(artifact, artifact.encode(), role)
    repository.publish(*"ABCD", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download(path) == (0 if found else 1), client.said
    assert client.downloaded() == ([path.encode()] if found else [])
    assert [r for r in repository.names_requested() if r[0] in "ABCD"] == [(name, 1) for name in visited]


@cases(question="?", hash="#", absolute="/role", up="../role", dots="..", percent="%2e", unicode="rôle")
def odd_role_name(client, name):
    repository = Repository()
    client.use(repository)
    repository.delegate("targets", name)
    repository.publish(name, bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("missing") == 1
    assert (name, 1) in repository.names_requested()
    assert len(client.trusted()) == 5
    assert sorted(os.listdir(client.folder)) == ["artifacts", "initial.json", "metadata"]


@cases(root="root", timestamp="timestamp", snapshot="snapshot")
def delegated_role_with_the_name_of_another(client, name):
    """It must not be stored in the place of the trusted one."""
    repository = started(client)
    signer = repository.new_signer()
    keyid = signer.public_key.keyid
    role = {"name": name, "keyids": [keyid], "threshold": 1, "terminating": False, "paths": ["*"]}
    targets = json.loads(repository.latest["targets"])["signed"] | {"version": 2}
    impostor = repository.sign_by_hand("", targets | {"version": 7}, [signer])
    targets["delegations"] = {"keys": {keyid: signer.public_key.to_dict()}, "roles": [role]}
    repository.targets.version = 2
    repository.replace("targets", repository.sign_by_hand("targets", targets))
    repository.served[name][7] = impostor
    repository.snapshot.meta |= {"targets.json": MetaFile(2), f"{name}.json": MetaFile(7)}
    repository.publish("snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    trusted = client.bytes(name)
    assert client.download("missing") == 1
    assert client.bytes(name) == trusted


@case
def expired_delegated_role(client):
    repository = started(client)
    repository.delegate("targets", "role", ["path/*"], expires=now() - timedelta(days=1))
    repository.add_artifact("path/artifact", b"content", "role")
    repository.publish("role", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    assert client.download("path/artifact") == 1
    assert client.downloaded() == []
    assert client.trusted() == {"root": 1, "snapshot": 2, "targets": 2, "timestamp": 2}


@case
def delegated_role_that_expires_and_is_renewed(client):
    repository = started(client)
    repository.delegate("targets", "role", ["path/*"], expires=now() + timedelta(days=7))
    repository.add_artifact("path/first", b"first", "role")
    repository.add_artifact("path/second", b"second", "role")
    repository.publish("role", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("path/first") == 0, client.said
    later = now() + timedelta(days=18)
    assert client.download("path/second", time=later) == 1
    assert client.downloaded() == [b"first"]
    repository.md["role"].signed.expires = now() + timedelta(days=21)
    repository.publish("role", "snapshot", "timestamp")
    assert client.download("path/second", time=later) == 0, client.said
    assert client.downloaded() == [b"first", b"second"]


@case
def stored_delegated_role_is_verified_by_the_present_delegator(client):
    """The same metadata, but the delegator that leads there now gives it other keys."""
    repository = started(client)
    repository.delegate("targets", "role", ["path/*"])
    repository.add_artifact("path/first", b"first", "role")
    repository.publish("role", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("path/first") == 0, client.said
    shutil.rmtree(client.artifacts)
    delegation = repository.targets.delegations.roles["role"]
    delegation.keyids.clear()
    repository.targets.add_key(repository.new_signer().public_key, "role")
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("path/first") == 1
    assert client.downloaded() == []


@case
def delegated_role_is_verified_by_each_delegator_in_one_run(client):
    """Two lead to one role, which only the keys of the first have signed: what the second leads to is not there."""
    repository = Repository()
    client.use(repository)
    repository.delegate("targets", "A", ["a/*"])
    repository.delegate("targets", "B", ["b/*"])
    repository.delegate("A", "role", ["a/*"])
    repository.delegate("B", "role", ["b/*"])
    keyid = repository.md["B"].signed.delegations.roles["role"].keyids[0]
    del repository.signers["role"][keyid]
    repository.add_artifact("a/artifact", b"a", "role")
    repository.add_artifact("b/artifact", b"b", "role")
    repository.publish("A", "B", "role", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("a/artifact", "b/artifact") == 1
    assert client.downloaded() == [b"a"]


@case
def delegated_role_that_the_snapshot_does_not_list(client):
    """It is not asked for."""
    repository = started(client)
    repository.delegate("targets", "role", ["path/*"])
    repository.add_artifact("path/artifact", b"content", "role")
    repository.publish("role", bump=False)
    del repository.snapshot.meta["role.json"]
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    repository.requests.clear()
    assert client.download("path/artifact") == 1
    assert repository.names_requested() == [("root", 2), ("timestamp", None)]
    assert client.downloaded() == []


@case
def delegated_role_signed_by_a_stranger(client):
    repository = started(client)
    repository.delegate("targets", "role", ["path/*"])
    repository.add_artifact("path/artifact", b"content", "role")
    repository.signers["role"].clear()
    stranger = repository.new_signer()
    repository.signers["role"][stranger.public_key.keyid] = stranger
    repository.publish("role", bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("path/artifact") == 1
    assert client.downloaded() == []
    assert "role" not in client.trusted()


@cases(one=1, eight=8, ten=10)
def hash_bins(client, bits):
    """TAP 15: only the bin in which the path falls is fetched."""
    repository = Repository()
    client.use(repository)
    names = repository.delegate_bins(bits)
    path = "path/artifact"
    name = repository.targets.delegations.succinct_roles.get_role_for_target(path)
    assert name in names
    repository.add_artifact(path, b"content", name)
    repository.publish(name, bump=False)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download(path) == 0, client.said
    assert client.downloaded() == [b"content"]
    assert repository.names_requested()[4:] == [(name, 1)]
