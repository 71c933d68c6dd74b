"""Which metadata belongs together: rollback, fast-forward, mix and match, endless data."""

from client import all_at, case, cases, started
from repository import Repository
from tuf.api.metadata import Metadata

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
