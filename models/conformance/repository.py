"""A TUF repository in memory, published by the reference implementation (`tuf` on PyPI), and a web server for it.

Each published version of a role is kept as bytes, so that a case can serve what a repository would never publish.
"""

import hashlib
import json
import threading
from collections import defaultdict
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

TOP = ("root", "timestamp", "snapshot", "targets")
KINDS = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "rsa": CryptoSigner.generate_rsa,
}


def now():
    return datetime.now(UTC).replace(microsecond=0)


class Repository:
    kind = "ed25519"  # of keys, unless told otherwise

    def __init__(self, kind=None):
        self.kind = kind or self.kind
        self.later = now() + timedelta(days=30)
        self.md = {
            "root": Metadata(Root(expires=self.later)),
            "timestamp": Metadata(Timestamp(expires=self.later)),
            "snapshot": Metadata(Snapshot(expires=self.later)),
            "targets": Metadata(Targets(expires=self.later)),
        }
        self.signers = defaultdict(dict)  # role -> keyid -> signer
        self.served = defaultdict(dict)  # role -> version -> bytes
        self.latest = {}
        self.artifacts = {}
        self.hashes = False
        self.requests = []
        self.fetched = []
        for role in TOP:
            self.add_key(role)
        self.publish("targets", "snapshot", "timestamp", "root", bump=False)

    # What is signed.
    @property
    def root(self):
        return self.md["root"].signed

    @property
    def timestamp(self):
        return self.md["timestamp"].signed

    @property
    def snapshot(self):
        return self.md["snapshot"].signed

    @property
    def targets(self):
        return self.md["targets"].signed

    def new_signer(self, kind=None):
        return KINDS[kind or self.kind]()

    def add_key(self, role, signer=None, delegator=None):
        signer = signer or self.new_signer()
        holder = self.md[delegator].signed if delegator else self.root
        holder.add_key(signer.public_key, role)
        self.signers[role][signer.public_key.keyid] = signer
        return signer

    def rotate(self, role):
        self.root.roles[role].keyids.clear()
        self.signers[role].clear()
        for _ in range(self.root.roles[role].threshold):
            self.add_key(role)

    def sign(self, role):
        md = self.md[role]
        md.signatures.clear()
        for signer in self.signers[role].values():
            md.sign(signer, append=True)
        return md.to_bytes(JSONSerializer())

    def sign_by_hand(self, role, signed, signers=None):
        """What the reference implementation would not sign."""
        data = encode_canonical(signed).encode()
        signatures = [s.sign(data).to_dict() for s in signers or self.signers[role].values()]
        return json.dumps({"signed": signed, "signatures": signatures}).encode()

    def publish(self, *roles, bump=True, served_as=None):
        """Signs and serves. Targets go into the snapshot's list, the snapshot into the timestamp's."""
        for role in roles:
            signed = self.md[role].signed
            signed.version += 1 if bump else 0
            data = self.sign(role)
            self.served[role][served_as or signed.version] = data
            self.latest[role] = data
            about = {"length": len(data), "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}
            file = MetaFile(signed.version, **(about if self.hashes else {}))
            if role == "snapshot":
                self.timestamp.snapshot_meta = file
            elif role not in TOP or role == "targets":
                self.snapshot.meta[f"{role}.json"] = file

    def replace(self, role, data):
        """Serves `data` instead of the latest version."""
        version = self.md[role].signed.version
        self.served[role][version] = data
        self.latest[role] = data

    def add_artifact(self, path, data, role="targets", hashes=("sha256",)):
        file = TargetFile.from_data(path, data, list(hashes))
        self.md[role].signed.targets[path] = file
        self.artifacts[path] = data

    def delegate(self, delegator, name, paths=("*",), prefixes=None, terminating=False, expires=None):
        signed = self.md[delegator].signed
        if signed.delegations is None:
            signed.delegations = Delegations({}, roles={})
        paths = None if prefixes else list(paths)
        signed.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, paths, prefixes)
        if name not in self.md:
            self.md[name] = Metadata(Targets(expires=expires or self.later))
        self.add_key(name, delegator=delegator)

    def delegate_bins(self, bits, prefix="bin"):
        succinct = SuccinctRoles([], 1, bits, prefix)
        self.targets.delegations = Delegations({}, None, succinct)
        signer = self.new_signer()
        self.targets.add_key(signer.public_key)
        for name in succinct.get_roles():
            self.md[name] = Metadata(Targets(expires=self.later))
            self.signers[name][signer.public_key.keyid] = signer
        return list(succinct.get_roles())

    # What is served.
    def fetch(self, path):
        kind, _, name = path.partition("/")
        if kind == "metadata" and name.endswith(".json"):
            return self.fetch_metadata(name.removesuffix(".json"))
        if kind == "targets":
            return self.fetch_artifact(name)
        return None

    def fetch_metadata(self, name):
        version, dot, role = name.partition(".")
        consistent = self.root.consistent_snapshot and name != "timestamp"
        if dot and version.isdigit() and (role == "root" or consistent):
            self.requests.append((unquote(role), int(version), name))
            return self.served[unquote(role)].get(int(version))
        self.requests.append((unquote(name), None, name))
        return self.latest.get(unquote(name))

    def fetch_artifact(self, path):
        folder, slash, name = unquote(path).rpartition("/")
        prefix = None
        if self.root.consistent_snapshot:
            prefix, _, name = name.partition(".")
        path = f"{folder}{slash}{name}"
        self.fetched.append((path, prefix))
        return self.artifacts.get(path)

    def names_requested(self):
        return [(role, version) for role, version, _ in self.requests]


class Server(ThreadingHTTPServer):
    def __init__(self):
        self.repositories = {}
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        pass  # a client that goes away in the middle, which is what some cases are about

    def serve(self, repository):
        name = str(len(self.repositories))
        self.repositories[name] = repository
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name, _, path = self.path.lstrip("/").partition("/")
        data = self.server.repositories[name].fetch(path)
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def edited(data, edit):
    """`data` with the JSON changed by `edit`, signatures as they are."""
    document = json.loads(data)
    edit(document)
    return json.dumps(document).encode()


def copy_key(key, **fields):
    """`key` with fields that the specification does not know, named as its content now demands."""
    named = Key.from_dict(key.keyid, {**deepcopy(key.to_dict()), **fields})
    named.keyid = hashlib.sha256(encode_canonical(named.to_dict()).encode()).hexdigest()
    return named
