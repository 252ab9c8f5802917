"""A metrics page of the real library under the real server, as model servers in Python have it.

    server.py serve [--port N] [--processes one|several] [--gzip-always]
    server.py measure [--requests N]

`serve` prints `listening ADDRESS`, then one JSON object per request for the page. `/control?running=N` sets what the page shows,
`/cpu` answers the CPU seconds of the process so far. `measure` prints what a request costs.
"""

import argparse
import asyncio
import http.client
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from urllib.parse import parse_qs

# The folder is part of a repository.
sys.dont_write_bytecode = True


def application(processes, gzip_always):
    # After the environment is set: the library looks at it when it is imported.
    from prometheus_client import REGISTRY, CollectorRegistry, make_asgi_app
    from prometheus_client.multiprocess import MultiProcessCollector
    from vllm_page import Page

    if processes == "several":
        page = Page(None)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    else:
        registry = REGISTRY
        page = Page(registry)
    metrics = make_asgi_app(registry)

    async def answer(send, body):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})

    async def app(scope, receive, send):
        if scope["path"] == "/control":
            values = parse_qs(scope["query_string"].decode())
            page.set(**{name: float(value[0]) for name, value in values.items()})
            return await answer(send, b"set\n")
        if scope["path"] == "/cpu":
            return await answer(send, f"{time.process_time()}\n".encode())
        if scope["path"] == "/nothing":
            return await answer(send, b"nothing\n")
        asked = {name.decode(): value.decode() for name, value in scope["headers"]}
        if gzip_always:
            others = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
            scope = {**scope, "headers": [*others, (b"accept-encoding", b"gzip")]}
        told = {"path": scope["path"], "query": scope["query_string"].decode()}
        told |= {"accept": asked.get("accept"), "accept_encoding": asked.get("accept-encoding")}

        async def watched(message):
            if message["type"] == "http.response.start":
                headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
                told["status"] = message["status"]
                told["content_encoding"] = headers.get("content-encoding")
            else:
                told["bytes"] = len(message.get("body", b""))
            await send(message)

        await metrics(scope, receive, watched)
        print(json.dumps(told), flush=True)

    return app


def serve(options):
    if options.processes == "several" and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        # Set for a process of its own: the values' files go with it.
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
            another = subprocess.Popen([sys.executable, __file__, "worker"], stdin=subprocess.PIPE, env=environment)
            try:
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
                listen(options)
            finally:
                another.stdin.close()
                another.wait()
    else:
        listen(options)


def listen(options):
    import uvicorn

    # Named as TCP, or asyncio leaves delays on: as uvicorn does it when it listens itself.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    # From the line below on whoever connects is served, if a moment later.
    listener.listen()
    app = application(options.processes, options.gzip_always)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
    print(f"listening 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    asyncio.run(server.serve(sockets=[listener]))


def worker(_options):
    """Another API process of the same server, with two requests of its own."""
    from vllm_page import Page

    Page(None).set(running=2)
    sys.stdin.read()


def measure(options):
    library = importlib.metadata.version("prometheus_client")
    names = "num_requests_running num_requests_waiting kv_cache_usage_perc prompt_tokens_total generation_tokens_total"
    restricted = "/metrics?" + "&".join(f"name%5B%5D=vllm%3A{name}" for name in names.split())
    kinds = [
        ("nothing", "/nothing", "identity"),
        ("full", "/metrics", "identity"),
        ("full, gzip", "/metrics", "gzip"),
        ("restricted", restricted, "identity"),
    ]
    print(f"prometheus_client {library}, Python {sys.version.split()[0]}, {options.requests} requests each")
    print("processes | asked for | bytes | ms of CPU per request")
    for processes in ("one", "several"):
        command = [sys.executable, __file__, "serve", "--processes", processes]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            address = server.stdout.readline().split()[1]
            connection = http.client.HTTPConnection(address)

            def ask(path, encoding):
                connection.request("GET", path, headers={"Accept": "text/plain;version=0.0.4", "Accept-Encoding": encoding})
                answer = connection.getresponse()
                body = answer.read()
                if path.startswith("/metrics"):
                    # The server waits where nobody reads what it prints.
                    server.stdout.readline()
                return body

            try:
                for kind, path, encoding in kinds:
                    size = [len(ask(path, encoding)) for _ in range(20)][0]
                    before = float(ask("/cpu", "identity"))
                    for _ in range(options.requests):
                        ask(path, encoding)
                    spent = float(ask("/cpu", "identity")) - before
                    print(f"{processes} | {kind} | {size} | {1000 * spent / options.requests:.3f}", flush=True)
            finally:
                connection.close()
                server.terminate()


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("serve")
    command.add_argument("--port", type=int, default=0)
    command.add_argument("--processes", choices=["one", "several"], default="one")
    command.add_argument("--gzip-always", action="store_true", help="pack the page, whatever was asked for")
    command.set_defaults(run=serve)
    command = commands.add_parser("worker")
    command.set_defaults(run=worker)
    command = commands.add_parser("measure")
    command.add_argument("--requests", type=int, default=500)
    command.set_defaults(run=measure)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
