"""Conformance and interoperability of kinewatch-tuf-client with the TUF specification and its reference implementation.

    python3 -m venv venv && venv/bin/pip install tuf==7.0.1
    venv/bin/python agent/ota/tests/conformance/run.py target/release/kinewatch-tuf-client [--published FOLDER] [NAME…]

Every case is a repository published by `tuf`, some of them broken by hand, and what a client must do with it by the
specification (section numbers at the cases). The program speaks the command line of the TUF project's conformance suite
(theupdateframework/tuf-conformance, CLIENT-CLI.md), so that suite can be run against it as well. Cases with a date need
`faketime`. With `--published`, each repository in FOLDER (the tests of kinewatch-ota leave some in
target/tmp/published/) is read by the reference implementation. Prints one line a case; exit status 1 if one fails.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from repository import Repository, Server, copy_key, edited, now
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile
from tuf.ngclient import Updater

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

    def run(self, arguments, time=None):
        command = (["faketime", f"{time:%Y-%m-%d %H:%M:%S}"] if time else []) + [self.program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "TZ": "UTC"})
        self.said = done.stderr.strip()
        assert done.returncode in (0, 1), f"exit status {done.returncode}: {self.said}"
        assert "panicked" not in self.said, self.said
        return done.returncode

    def refresh(self, time=None):
        return self.run(["--metadata-dir", self.metadata, "--metadata-url", f"{self.url}/metadata", "refresh"], time)

    def download(self, path, time=None):
        where = ["--metadata-dir", self.metadata, "--metadata-url", f"{self.url}/metadata/"]
        what = ["--target-name", path, "--target-base-url", f"{self.url}/targets/", "--target-dir", self.artifacts]
        return self.run([*where, *what, "download"], time)

    def trusted(self):
        """Role to version, of every .json file in the folder of trusted metadata."""
        names = [n.removesuffix(".json") for n in sorted(os.listdir(self.metadata)) if n.endswith(".json")]
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


# The workflow as such.


@case
def first_refresh_asks_for_what_it_needs(client):
    repository = Repository()
    assert client.use(repository) == 0
    assert repository.requests == [], "init makes no request"
    assert client.refresh() == 0, client.said
    assert repository.names_requested() == [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]
    for role in ("root", "timestamp", "snapshot", "targets"):
        assert client.bytes(role) == repository.latest[role], "stored as received"


@case
def unchanged_repository_costs_two_requests(client):
    repository = started(client)
    assert client.refresh() == 0
    assert repository.names_requested() == [("root", 2), ("timestamp", None)]


@case
def download_refreshes_first(client):
    repository = Repository()
    client.use(repository)
    assert client.download("no such artifact") == 1
    assert repository.names_requested() == [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]
    assert client.trusted() == all_at(1)


@case
def unusual_serialization_is_stored_as_is(client):
    repository = Repository()
    repository.replace("timestamp", repository.latest["timestamp"] + b" \n")
    client.use(repository)
    assert client.refresh() == 0
    assert client.bytes("timestamp") == repository.latest["timestamp"]


@case
def fields_unknown_to_the_specification(client):
    """Section 4: they are covered by the signature, and otherwise ignored."""
    repository = started(client)
    signer = repository.new_signer()
    key = copy_key(signer.public_key, **{"x-extra": {"a": 1, "b": [2]}, "keyid_hash_algorithms": ["md5"]})
    signer = CryptoSigner(signer._private_key, key)
    repository.add_key("root", signer)
    repository.add_key("snapshot", CryptoSigner(signer._private_key, key))
    repository.root.unrecognized_fields["x-root"] = "value"
    repository.root.roles["root"].unrecognized_fields["x-role"] = "value"
    repository.snapshot.unrecognized_fields["x-snapshot"] = {"z": None}
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    assert client.trusted() == all_at(2)


@case
def key_identifiers_need_not_be_digests(client):
    """A KEYID is a unique name; the reference implementation does not compute it either."""
    repository = started(client)
    signer = repository.new_signer()
    signer.public_key.keyid = "the key in the safe"
    repository.add_key("snapshot", signer)
    repository.root.roles["snapshot"].threshold = 2
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said


@cases(root="root", timestamp="timestamp", snapshot="snapshot", targets="targets")
def wrong_type(client, role):
    """The same content under another role's name (4.3): signed by the right keys, but not that kind of metadata."""
    repository = started(client)
    other = "snapshot" if role == "timestamp" else "timestamp"
    repository.md[other].signed.version = repository.md[role].signed.version + 1
    body = repository.md[other]
    body.signatures.clear()
    for signer in repository.signers[role].values():
        body.sign(signer, append=True)
    if role != "root":
        repository.publish(role)
    else:
        repository.root.version += 1
    repository.replace(role, body.to_bytes())
    if role == "targets":
        repository.md["timestamp"].signed.version = 1
        repository.publish("snapshot", "timestamp")
    elif role == "snapshot":
        repository.md["timestamp"].signed.version = 1
        repository.publish("timestamp")
    assert client.refresh() == 1
    assert client.trusted()[role] == 1


@cases(timestamp="timestamp", snapshot="snapshot", targets="targets")
def another_major_version_of_the_specification(client, role):
    repository = started(client)
    repository.md[role].signed.spec_version = "2.0.0"
    repository.publish(role)
    order = ("targets", "snapshot", "timestamp")
    repository.publish(*order[order.index(role) + 1 :])
    assert client.refresh() == 1
    assert client.trusted()[role] == 1


# Trust anchor.


@case
def anchor_without_version(client):
    repository = Repository()
    client.use(repository, edited(repository.served["root"][1], lambda d: d["signed"].pop("version")))
    assert client.refresh() == 1
    assert repository.requests == []


@case
def anchor_not_signed(client):
    repository = Repository()
    client.use(repository, edited(repository.served["root"][1], lambda d: d["signatures"][0].update(sig="ab" * 64)))
    assert client.refresh() == 1
    assert repository.requests == []


# Roots (5.3). Keys by number; each step is (keys, threshold, signed by).

ROTATIONS = {
    "new_key": ([([1], 1, [1]), ([2], 1, [1, 2]), ([2], 1, [2])], True),
    "signatures_of_strangers": ([([1], 1, [1, 3]), ([2], 1, [4, 2, 1, 3]), ([2], 1, [3, 2])], True),
    "any_three_of_five": ([([0, 1, 2, 3, 4], 3, [0, 1, 2]), ([0, 1, 2, 3, 4], 3, [2, 3, 4])], True),
    "one_of_five_replaced": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 1, 4])], True),
    "all_of_five_replaced": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7])], True),
    "threshold_up": ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])], True),
    "threshold_down": ([([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 3]), ([1, 2, 3], 1, [2])], True),
    "not_signed_by_the_old": ([([1], 1, [1]), ([2], 1, [2, 3])], False),
    "not_signed_by_the_new": ([([1], 1, [1]), ([2], 1, [1, 3])], False),
    "old_key_after_rotation": ([([1], 1, [1]), ([2], 1, [1, 2]), ([1], 1, [1])], False),
    "too_few_new": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4])], False),
    "too_few_old": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])], False),
    "threshold_up_not_reached": ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2])], False),
    "threshold_down_old_not_reached": ([([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1])], False),
}


@cases(**ROTATIONS)
def root_rotation(client, rotation):
    steps, good = rotation
    repository = Repository()
    signers = [repository.new_signer() for _ in range(10)]
    repository.served["root"].clear()
    repository.root.version = 0
    for keys, threshold, by in steps:
        repository.root.roles["root"].keyids.clear()
        repository.signers["root"].clear()
        repository.root.roles["root"].threshold = threshold
        for i in keys:
            repository.root.add_key(signers[i].public_key, "root")
        for i in by:
            repository.signers["root"][signers[i].public_key.keyid] = signers[i]
        repository.publish("root")
    assert client.use(repository) == 0
    assert client.refresh() == (0 if good else 1), client.said
    reached = len(steps) if good else len(steps) - 1
    assert client.bytes("root") == repository.served["root"][reached]


@cases(
    replaced=([2], 1, [2], True),
    strangers=([1], 1, [3, 1, 4], True),
    three_of_five=([0, 1, 2, 3, 4], 3, [2, 3, 4], True),
    old_key=([2], 1, [1, 3], False),
    one_wrong_of_three=([0, 1, 3, 4, 5], 3, [0, 2, 4], False),
    two_of_three=([0, 1, 3, 4, 5], 3, [0, 4], False),
)
def keys_of_other_roles(client, how):
    keys, threshold, by, good = how
    for role in ("timestamp", "snapshot", "targets"):
        fresh = Client(client.program, client.server)
        repository = Repository()
        fresh.use(repository)
        signers = [repository.new_signer() for _ in range(6)]
        repository.root.roles[role].keyids.clear()
        repository.signers[role].clear()
        repository.root.roles[role].threshold = threshold
        for i in keys:
            repository.root.add_key(signers[i].public_key, role)
        for i in by:
            repository.signers[role][signers[i].public_key.keyid] = signers[i]
        repository.publish("root", "targets", "snapshot", "timestamp")
        assert fresh.refresh() == (0 if good else 1), f"{role}: {fresh.said}"
        assert (fresh.trusted().get(role) == 2) == good, role
        shutil.rmtree(fresh.folder)


@case
def many_roots(client):
    repository = started(client)
    for _ in range(40):
        repository.rotate("targets")
        repository.publish("root")
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    assert client.trusted() == {"root": 41, "snapshot": 2, "targets": 2, "timestamp": 2}


@case
def expired_root_in_between(client):
    """5.3.6: only the last one must be fresh."""
    repository = started(client)
    repository.root.expires = now() - timedelta(days=1)
    repository.publish("root")
    repository.root.expires = repository.later
    repository.publish("root")
    assert client.refresh() == 0, client.said
    assert client.trusted()["root"] == 3


@cases(skipped=3, repeated=1)
def root_version_must_be_the_next(client, version):
    repository = started(client)
    repository.root.version = version
    repository.publish("root", bump=False, served_as=2)
    assert client.refresh() == 1
    assert client.trusted() == all_at(1)


# Signatures.


@cases(
    root=("root", {"root": 1}),
    timestamp=("timestamp", {"root": 2}),
    snapshot=("snapshot", {"root": 2, "timestamp": 2}),
    targets=("targets", {"root": 2, "snapshot": 2, "timestamp": 2}),
)
def unsigned(client, what):
    """What was verified before the unsigned role is kept."""
    role, trusted = what
    repository = Repository()
    repository.signers[role].clear()
    repository.publish("root", "targets", "snapshot", "timestamp")
    client.use(repository)
    assert client.refresh() == 1
    assert client.trusted() == trusted


@case
def one_signature_too_few(client):
    repository = Repository()
    repository.root.roles["snapshot"].threshold = 3
    for _ in range(2):
        repository.add_key("snapshot")
    repository.publish("root", "targets", "snapshot", "timestamp")
    client.use(repository)
    assert client.refresh() == 0, client.said
    repository.signers["snapshot"].popitem()
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted()["snapshot"] == 2


@case
def threshold_above_the_number_of_keys(client):
    repository = started(client)
    repository.root.roles["snapshot"].threshold = 2
    repository.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted() == {"root": 2, "snapshot": 1, "targets": 1, "timestamp": 2}


@case
def one_key_under_many_names_counts_once(client):
    repository = started(client)
    signer = repository.new_signer()
    repository.root.roles["snapshot"].threshold = 2
    repository.root.roles["snapshot"].keyids.clear()
    repository.signers["snapshot"].clear()
    for name in ("first", "second"):
        alias = CryptoSigner(signer._private_key, copy_key(signer.public_key))
        alias.public_key.keyid = name
        repository.add_key("snapshot", alias)
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert len(repository.md["snapshot"].signatures) == 2
    assert client.refresh() == 1
    assert client.trusted().get("snapshot") != 2


@cases(enough_otherwise=1, not_enough=2)
def two_signatures_of_one_key(client, threshold):
    """4.2: the KEYID must be unique in the signatures, whether or not the threshold is reached without."""
    repository = started(client)
    repository.root.roles["snapshot"].threshold = threshold
    repository.publish("root", "targets", "snapshot", "timestamp")
    twice = edited(repository.latest["snapshot"], lambda d: d["signatures"].append(d["signatures"][0]))
    repository.replace("snapshot", twice)
    assert client.refresh() == 1
    assert client.trusted()["snapshot"] == 1


@cases(plausible="ab" * 64, empty="", no_hex="not hex")
def a_bad_signature_beside_a_good_one(client, signature):
    repository = started(client)
    old = next(iter(repository.signers["timestamp"]))
    repository.add_key("timestamp")
    repository.publish("root", "timestamp")

    def spoil(document):
        next(s for s in document["signatures"] if s["keyid"] == old)["sig"] = signature

    repository.replace("timestamp", edited(repository.latest["timestamp"], spoil))
    assert client.refresh() == 0, client.said
    assert client.trusted()["timestamp"] == 2


@cases(ed25519="ed25519", ecdsa="ecdsa", rsa="rsa")
def kinds_of_keys(client, kind):
    repository = started(client)
    signer = repository.add_key("root", repository.new_signer(kind))
    repository.root.roles["root"].threshold = 2
    repository.publish("root")
    assert client.refresh() == 0, client.said
    assert client.trusted()["root"] == 2
    repository.publish("root")
    keyid = signer.public_key.keyid
    before = json.loads(repository.served["root"][2])["signatures"]
    another = next(s["sig"] for s in before if s["keyid"] == keyid)

    def spoil(document):
        next(s for s in document["signatures"] if s["keyid"] == keyid)["sig"] = another

    repository.replace("root", edited(repository.latest["root"], spoil))
    assert client.refresh() == 1, "a signature by that key, of something else"
    assert client.trusted()["root"] == 2


@case
def a_key_of_an_unknown_kind_does_not_count(client):
    repository = started(client)
    signer = repository.add_key("snapshot")
    repository.publish("root", "targets", "snapshot", "timestamp")

    document = json.loads(repository.latest["root"])
    document["signed"]["keys"][signer.public_key.keyid]["keytype"] = "post-quantum"
    repository.replace("root", repository.sign_by_hand("root", document["signed"]))
    assert client.refresh() == 0, client.said
    assert client.trusted() == all_at(2)


# Rollback (5.4.3, 5.5.5), fast-forward recovery (5.3.11).


@case
def older_timestamp(client):
    repository = started(client)
    old = repository.latest["timestamp"]
    repository.publish("timestamp")
    assert client.refresh() == 0
    repository.latest["timestamp"] = old
    assert client.refresh() == 1
    assert client.trusted()["timestamp"] == 2
    assert repository.names_requested()[-1] == ("timestamp", None)


@case
def timestamp_of_the_same_version_is_not_replaced(client):
    repository = started(client)
    repository.timestamp.snapshot_meta.version = 100
    repository.publish("timestamp", bump=False)
    assert client.refresh() == 0, client.said
    assert repository.names_requested()[-1] == ("timestamp", None)
    assert Metadata.from_bytes(client.bytes("timestamp")).signed.snapshot_meta.version == 1


@cases(without_hashes=False, with_hashes=True)
def older_snapshot_in_a_newer_timestamp(client, hashes):
    repository = Repository()
    repository.hashes = hashes
    repository.publish("targets", "snapshot", "timestamp")
    client.use(repository)
    assert client.refresh() == 0, client.said
    repository.snapshot.version = 1
    repository.publish("snapshot", bump=False)
    repository.publish("timestamp")
    assert client.refresh() == 1
    assert client.trusted() == {"root": 1, "snapshot": 2, "targets": 2, "timestamp": 2}
    assert repository.names_requested()[-1] == ("timestamp", None)


@cases(without_hashes=False, with_hashes=True)
def older_targets_in_a_newer_snapshot(client, hashes):
    repository = Repository()
    repository.hashes = hashes
    repository.publish("targets", "snapshot", "timestamp")
    client.use(repository)
    assert client.refresh() == 0, client.said
    repository.targets.version = 1
    repository.publish("targets", bump=False)
    repository.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted() == {"root": 1, "snapshot": 2, "targets": 2, "timestamp": 3}


@case
def a_role_vanishes_from_the_snapshot(client):
    repository = started(client)
    repository.delegate("targets", "role")
    repository.publish("role", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    del repository.snapshot.meta["role.json"]
    repository.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted()["snapshot"] == 2


@cases(timestamp="timestamp", snapshot="snapshot", targets="targets")
def recovery_from_a_fast_forward(client, role):
    repository = started(client)
    repository.md[role].signed.version = 2**53
    order = ("targets", "snapshot", "timestamp")
    repository.publish(*order[order.index(role) :])
    assert client.refresh() == 0, client.said
    assert client.trusted()[role] == 2**53 + 1
    repository.md[role].signed.version = 1
    for rotated in ("timestamp", "snapshot") if role == "snapshot" else ("snapshot",) if role == "targets" else (role,):
        repository.rotate(rotated)
    repository.publish("root", *order)
    assert client.refresh() == 0, client.said
    assert client.trusted()[role] == 2


@case
def a_key_more_is_no_recovery(client):
    """Only a key that leaves the role lets versions start anew."""
    repository = started(client)
    old = repository.latest["timestamp"]
    repository.publish("timestamp")
    assert client.refresh() == 0
    repository.add_key("timestamp")
    repository.publish("root")
    repository.latest["timestamp"] = old
    assert client.refresh() == 1
    assert client.trusted()["timestamp"] == 2


# Mix and match: versions, lengths, hashes (5.5.2, 5.5.4, 5.6.2, 5.6.4).


@cases(snapshot="snapshot", targets="targets")
def another_version_than_its_name_says(client, role):
    repository = started(client)
    signed = repository.md[role].signed
    signed.version = 3
    repository.publish(role, bump=False, served_as=2)
    listed = repository.timestamp.snapshot_meta if role == "snapshot" else repository.snapshot.meta["targets.json"]
    listed.version = 2
    if role == "targets":
        repository.publish("snapshot")
    repository.publish("timestamp")
    assert client.refresh() == 1
    assert client.trusted()[role] == 1


@cases(snapshot="snapshot", targets="targets")
def wrong_hash(client, role):
    repository = started(client)
    repository.hashes = True
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    repository.publish("targets", "snapshot")
    listed = repository.timestamp.snapshot_meta if role == "snapshot" else repository.snapshot.meta["targets.json"]
    listed.hashes["sha256"] = "ab" * 32
    if role == "targets":
        repository.snapshot.version -= 1
        repository.publish("snapshot")
    repository.publish("timestamp")
    assert client.refresh() == 1
    assert client.trusted()[role] == 2


@cases(longer=-1, shorter=1)
def wrong_length(client, difference):
    repository = started(client)
    repository.hashes = True
    repository.publish("targets", "snapshot")
    repository.timestamp.snapshot_meta.length += difference
    repository.publish("timestamp")
    assert client.refresh() == 1
    assert client.trusted()["snapshot"] == 1


@cases(timestamp=["root"], snapshot=["root", "timestamp"], targets=["root", "snapshot", "timestamp"])
def missing(client, kept):
    role = next(r for r in ("timestamp", "snapshot", "targets") if r not in kept)
    repository = Repository()
    client.use(repository)
    repository.served[role].clear()
    repository.latest.pop(role)
    assert client.refresh() == 1
    assert sorted(client.trusted()) == kept


@cases(
    root=("root", 600 << 10),
    timestamp=("timestamp", 40 << 10),
    snapshot=("snapshot", 3 << 20),
    targets=("targets", 6 << 20),
)
def endless_metadata(client, what):
    role, size = what
    repository = started(client)
    order = ("root", "targets", "snapshot", "timestamp")
    repository.publish(*(order[1:] if role != "root" else order))
    repository.replace(role, repository.latest[role] + b" " * size)
    assert client.refresh() == 1
    assert client.trusted()[role] == 1


@case
def new_targets_that_no_snapshot_lists(client):
    repository = started(client)
    repository.publish("targets")
    assert client.refresh() == 0
    assert client.trusted() == all_at(1)


# Freeze (5.3.10, 5.4.4, 5.5.6, 5.6.5).


@cases(
    root=("root", {"root": 2, "snapshot": 1, "targets": 1, "timestamp": 1}),
    timestamp=("timestamp", {"root": 2, "snapshot": 1, "targets": 1, "timestamp": 1}),
    snapshot=("snapshot", {"root": 2, "snapshot": 1, "targets": 1, "timestamp": 2}),
    targets=("targets", {"root": 2, "snapshot": 2, "targets": 1, "timestamp": 2}),
)
def expired(client, what):
    role, trusted = what
    repository = started(client)
    repository.md[role].signed.expires = now() - timedelta(days=5)
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.trusted() == trusted


@cases(root="root", timestamp="timestamp", snapshot="snapshot", targets="targets")
def expires_while_nothing_new_comes(client, role):
    repository = started(client)
    repository.md[role].signed.expires = now() + timedelta(days=7)
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    assert client.refresh(now() + timedelta(days=6)) == 0, client.said
    assert client.refresh(now() + timedelta(days=8)) == 1
    assert client.refresh() == 0, "the clock went back: no lock-out"


@cases(root="root", timestamp="timestamp", snapshot="snapshot", targets="targets")
def a_newer_one_replaces_an_expired_one(client, role):
    repository = started(client)
    repository.md[role].signed.expires = now() + timedelta(days=7)
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0, client.said
    repository.md[role].signed.expires = now() + timedelta(days=21)
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh(now() + timedelta(days=18)) == 0, client.said
    assert client.trusted() == all_at(3)


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
    top=("targetfile", True, ""),
    wildcard=("README.md", True, "A"),
    two_levels=("releases/x/x_v1", True, "BC"),
    suffix=("releases/y/y_v1.zip", True, "BD"),
    not_in_every_link=("releases/z/z_v1.zip", False, "B"),
)
def delegated_artifact(client, what):
    path, found, visited = what
    repository = Repository()
    client.use(repository)
    repository.delegate("targets", "A", ["*.doc", "*.md"])
    repository.delegate("targets", "B", ["releases/*/*"])
    repository.delegate("B", "C", ["releases/x/*"])
    repository.delegate("B", "D", ["releases/y/*.zip"])
    owners = {"targetfile": "targets", "README.md": "A", "releases/x/x_v1": "C"}
    owners |= {"releases/y/y_v1.zip": "D", "releases/z/z_v1.zip": "D"}
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
    assert client.download("path/second", later) == 1
    assert client.downloaded() == [b"first"]
    repository.md["role"].signed.expires = now() + timedelta(days=21)
    repository.publish("role", "snapshot", "timestamp")
    assert client.download("path/second", later) == 0, client.said
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


def read_published(folder):
    """The other way round: repositories made by `kinewatch publish`, read by the reference implementation."""
    for name in sorted(os.listdir(folder)):
        home = os.path.join(folder, name)
        handler = partial(QuietHandler, directory=os.path.join(home, "repository"))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"

        def read(home=home, url=url):
            with open(os.path.join(home, "root.json"), "rb") as f:
                anchor = f.read()
            with open(os.path.join(home, "targets.json")) as f:
                targets = json.load(f)
            assert targets
            with tempfile.TemporaryDirectory() as scratch:
                updater = Updater(scratch, f"{url}/metadata/", scratch, f"{url}/targets/", bootstrap=anchor)
                updater.refresh()
                for path, digest in targets.items():
                    info = updater.get_targetinfo(path)
                    assert info, f"{path} is not listed"
                    with open(updater.download_target(info), "rb") as f:
                        assert hashlib.sha256(f.read()).hexdigest() == digest, path

        CASES[f"read_by_the_reference_implementation[{name}]"] = lambda client, read=read: read()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def main():
    program, *wanted = sys.argv[1:]
    if "--published" in wanted:
        at = wanted.index("--published")
        read_published(wanted[at + 1])
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
