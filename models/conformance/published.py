"""The other way round: what `kinewatch publish` makes, read by the reference implementation."""

import hashlib
import json
import os
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from client import CASES
from tuf.ngclient import Updater


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
