#!/usr/bin/env python3
"""Runs schemathesis against the OpenAPI document of a node that it starts, with drivers connected.

check.py NODE_PROGRAM: run it with the Python that schemathesis is installed for. Fails when a check fails, when the node
ends or says that it failed, when an endpoint was not reached, and when the run takes too long.
"""

import base64
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
# One run takes about a minute; this bounds a hang.
SECONDS_MAX = 600
READY_SECONDS_MAX = 30
# The driver of the document's examples, and others that hooks.py puts in the place of made-up ones.
DRIVERS = ["driver-7", "driver-9"]
# Answers that show that the calls reach what is behind the checks.
REACHED = {
    "postOffer": 202,
    "postResponse": 200,
    "postCancel": 200,
    "postTripCancel": 200,
    "getRequest": 200,
    "getAudit": 200,
    "getDriver": 200,
    "getRecords": 200,
    "getEvents": 200,
    "postEventsAck": 200,
}


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="dispatchd-openapi-") as scratch:
        scratch = pathlib.Path(scratch)
        port = free_port()
        with open(scratch / "node.log", "w+") as log:
            command = [program, "serve", "--data", str(scratch / "data"), "--listen", f"127.0.0.1:{port}"]
            command += ["--set", "shards=2"]
            with subprocess.Popen(command, stdout=log, stderr=log) as node:
                try:
                    until_ready(node, port)
                    for driver in DRIVERS:
                        threading.Thread(target=drive, args=(port, driver), daemon=True).start()
                    failed = check(port, scratch)
                    if node.poll() is not None:
                        failed.append(f"the node ended with {node.poll()}")
                finally:
                    if node.poll() is None:
                        node.send_signal(signal.SIGTERM)
                        node.wait(timeout=30)
            log.seek(0)
            text = log.read()
            if node.returncode != 0 or " ERROR " in text:
                failed.append(f"the node ended with {node.returncode}; its log ends in\n{text[-4000:]}")
    for problem in failed:
        print(f"FAILED  {problem}")
    sys.exit(1 if failed else 0)


def check(port, scratch):
    """What failed, as sentences."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "CONFORMANCE_DRIVERS": ",".join(DRIVERS)}
    environment["CONFORMANCE_STATUSES"] = str(scratch / "statuses")
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", str(HERE / "schemathesis.toml"), "run", f"http://127.0.0.1:{port}/openapi.json"]
    status = subprocess.run(command, env=environment, cwd=scratch, timeout=SECONDS_MAX).returncode
    failed = [f"schemathesis ended with {status}"] if status else []
    seen = [line.split() for line in (scratch / "statuses").read_text().splitlines()]
    seen = {(operation, int(status)) for operation, status in seen}
    for operation, status in REACHED.items():
        if (operation, status) not in seen:
            answers = sorted(other for name, other in seen if name == operation)
            failed.append(f"{operation} was never answered {status}, only {answers}")
    print(f"{len(seen)} different answers of {len({operation for operation, _ in seen})} operations")
    return failed


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_ready(node, port):
    end = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < end and node.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"the node is not ready; it ended with {node.poll()}")


# ---- a driver, who is there and says nothing but PING ------------------------------------------------------------


def drive(port, driver_id):
    """Keeps a driver connected as long as the process lives."""
    stream = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    stream.sendall(
        f"GET /ws/driver/{driver_id} HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: dispatch.v1\r\n\r\n".encode()
    )
    stream.settimeout(10)
    try:
        while True:
            try:
                if not stream.recv(65536):
                    return
            except TimeoutError:
                pass
            stream.sendall(ping_frame())
    except OSError:
        return  # The node has ended.


def ping_frame():
    """`{"type":"PING"}` as a masked text frame (RFC 6455 §5.2)."""
    payload, mask = b'{"type":"PING"}', secrets.token_bytes(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([0x81, 0x80 | len(payload)]) + mask + masked


if __name__ == "__main__":
    main()
