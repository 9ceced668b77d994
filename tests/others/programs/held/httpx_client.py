"""httpx: The function holds a client whose connection is kept alive, and each item gets a page by it.

Write: as it is; fresh interpreters make one themselves, as in the row of requests
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

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
        self.client = httpx.Client(base_url=address, timeout=20)
        assert self[0] == "/0"

    def __len__(self):
        return 60

    def __getitem__(self, i):
        found = self.client.get(f"/{i}").text
        if found != f"/{i}":
            raise ValueError("this is another item's page")
        return found


server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()
pages = Pages(f"http://127.0.0.1:{server.server_port}")
assert list(ordered_imap(pages, workers=2, backend=sys.argv[1])) == [f"/{n}" for n in range(60)]
