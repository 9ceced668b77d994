"""grpcio: A call is made on a channel before the loop; each item opens a channel of its own and makes one.

Write: as it is
Reported: grpc/grpc#18321
"""

import subprocess
import sys

import grpc

from ordmap import ordered_map

SERVER = """
import concurrent.futures, grpc, sys
answer = grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1])
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("mirror", {"turn": answer})])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
"""


def turned(word):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary("/mirror/turn")(word, timeout=20)


server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
try:
    port = int(server.stdout.readline())
    assert turned(b"abc") == b"cba"
    words = [b"%dx" % n for n in range(6)]
    assert list(ordered_map(turned, words, workers=2, backend=sys.argv[1])) == [word[::-1] for word in words]
finally:
    server.communicate(b"")
