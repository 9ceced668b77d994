"""requests: The dataset makes a session in each worker, process or thread, that asks for one.

Write: as it is
"""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from ordmap import ordered_imap


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_):
        pass


class Pages:
    def __init__(self, address):
        self.address = address
        self.sessions = {}

    def __len__(self):
        return 60

    def __getitem__(self, i):
        worker = os.getpid(), threading.get_ident()
        if worker not in self.sessions:
            self.sessions[worker] = requests.Session()
        return self.sessions[worker].get(f"{self.address}/{i}", timeout=20).text


server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()
pages = Pages(f"http://127.0.0.1:{server.server_port}")
assert list(ordered_imap(pages, workers=2, backend=sys.argv[1])) == [f"/{n}" for n in range(60)]
