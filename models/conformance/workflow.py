"""The workflow as such, the trust anchor, and the expiry of everything (freeze)."""

from datetime import timedelta

from client import all_at, case, cases, started
from repository import Repository, copy_key, edited, now
from securesystemslib.signer import CryptoSigner

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
