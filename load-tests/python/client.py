"""A client in Python, written from PROTOCOL.md and the .proto files alone.

It connects, says hello, takes one order, checks it as PROTOCOL.md section 5 says (the envelope by `openssl cms`), asks
for the definition, and answers with one row. It prints one JSON object a step.

usage: client.py SWITCH_URL HOME CERT KEY DEVICE [TENANT]
"""

import asyncio
import hashlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import websockets
from muster.common.v1 import common_pb2
from muster.order.v1 import order_pb2
from muster.session.v1 import session_pb2

CONTENT_TYPES = {"order": "1.3.6.1.3.20263.1.2", "definition": "1.3.6.1.3.20263.1.1"}


def say(step, **particulars):
    print(json.dumps({"step": step, **particulars}), flush=True)


def verified(envelope, roots, kind):
    """The content of a CMS envelope, verified by openssl under one role's roots."""
    with tempfile.TemporaryDirectory() as folder:
        signed = Path(folder, "envelope.der")
        content = Path(folder, "content")
        signed.write_bytes(envelope)
        command = ["openssl", "cms", "-verify", "-binary", "-purpose", "any", "-inform", "DER",
                   "-in", signed, "-CAfile", roots, "-out", content]
        subprocess.run(command, check=True, capture_output=True)
        printed = subprocess.run(["openssl", "cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", signed],
                                 check=True, capture_output=True, text=True).stdout
        # The type of the content keeps one kind of document from being taken for another.
        assert f"eContentType: undefined ({CONTENT_TYPES[kind]})" in printed, printed[:400]
        return content.read_bytes()


def in_members(device, proof, root, count):
    """RFC 9162 section 2.1.3.2: whether the device is under the root."""
    index, last = proof.leaf_index, count - 1
    if index > last:
        return False
    node = hashlib.sha256(b"\x00" + device.encode("ascii")).digest()
    for sibling in proof.hashes:
        if last == 0:
            return False
        if index & 1 or index == last:
            node = hashlib.sha256(b"\x01" + sibling + node).digest()
            while not index & 1 and index != 0:
                index >>= 1
                last >>= 1
        else:
            node = hashlib.sha256(b"\x01" + node + sibling).digest()
        index >>= 1
        last >>= 1
    return last == 0 and node == root


def text(name, value):
    return common_pb2.NamedValue(name=name, value=common_pb2.Value(text=value))


class Client:
    def __init__(self, socket, home, device, tenant):
        self.socket, self.home, self.device, self.tenant = socket, home, device, tenant
        self.outbox_id = os.urandom(16)

    async def send(self, **body):
        await self.socket.send(session_pb2.Frame(**body).SerializeToString())

    async def receive(self, wanted):
        """The next frame of a kind; pings are answered on the way."""
        while True:
            frame = session_pb2.Frame.FromString(await asyncio.wait_for(self.socket.recv(), 30))
            kind = frame.WhichOneof("body")
            if kind == "ping":
                await self.send(pong=session_pb2.Pong(nonce=frame.ping.nonce))
            elif kind == "go_away":
                raise SystemExit(f"told to go away: {frame.go_away}")
            elif kind == wanted:
                return frame

    async def hello(self):
        await self.send(hello=session_pb2.Hello(
            outbox_id=self.outbox_id, versions=[1], client_version="0.1.0",
            attributes=[text("os", "linux"), text("host", self.device), text("arch", "python")]))
        welcome = (await self.receive("welcome")).welcome
        say("welcome", epoch=welcome.epoch, version=welcome.version, credit=welcome.results_credit_bytes)
        return welcome

    def check(self, frame):
        order = order_pb2.Order.FromString(verified(frame.order.envelope, self.home / "trust/orders.pem", "order"))
        now = int(time.time() * 1000)
        assert order.tenant == self.tenant, order.tenant
        assert order.not_before_ms <= now < order.expires_at_ms <= order.not_before_ms + 7 * 86_400_000
        root = order.audience.members_root
        assert in_members(self.device, frame.proof, root, order.audience.members_count), "not in the audience"
        return order

    async def definition(self, order):
        await self.send(document_request=session_pb2.DocumentRequest(
            kind=session_pb2.DOCUMENT_KIND_DEFINITION, digest=order.definition_digest))
        document = (await self.receive("document")).document
        assert hashlib.sha256(document.envelope).digest() == order.definition_digest
        return verified(document.envelope, self.home / "trust/authors.pem", "definition").decode()

    async def answer(self, order, credit):
        await self.send(progress=session_pb2.Progress(
            instruction=order.instruction, state=common_pb2.TARGET_STATE_ACKED))
        now = int(time.time() * 1000)
        frame = session_pb2.Frame(result=session_pb2.Result(
            sequence=1, instruction=order.instruction, state=common_pb2.TARGET_STATE_ANSWERED, last=True,
            columns=[common_pb2.Column(name="name", type=common_pb2.COLUMN_TYPE_TEXT)],
            rows=[common_pb2.Row(values=[common_pb2.Value(text="Python")])],
            started_at_ms=now, finished_at_ms=now))
        encoded = frame.SerializeToString()
        assert len(encoded) <= credit
        await self.socket.send(encoded)
        ack = (await self.receive("ack")).ack
        assert ack.lane == session_pb2.LANE_RESULTS and (ack.ranges[0].first, ack.ranges[0].last) == (1, 1)


async def main(url, home, certificate, key, device, tenant="dev"):
    home = Path(home)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(home / "trust/servers.pem")
    tls.load_cert_chain(certificate, key)
    async with websockets.connect(url, ssl=tls, subprotocols=["muster.v1"], compression=None,
                                  max_size=1 << 20) as socket:
        client = Client(socket, home, device, tenant)
        welcome = await client.hello()
        frame = await client.receive("order")
        order = client.check(frame)
        say("order", definition=order.definition_name, targets=order.audience.members_count)
        definition = await client.definition(order)
        assert f'"{order.definition_name}"' in definition
        await client.answer(order, welcome.results_credit_bytes)
        say("acked")


asyncio.run(main(*sys.argv[1:]))
