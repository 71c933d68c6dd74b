"""Who may sign: rotation of roots, keys of other roles, thresholds, kinds of keys."""

import json
import shutil
from datetime import timedelta

from client import Client, all_at, case, cases, started
from repository import Repository, copy_key, edited, now
from securesystemslib.signer import CryptoSigner

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
