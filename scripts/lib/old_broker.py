"""A broker as the one was that this program replaces: aiohttp in front of nats-py. For comparison only."""

import asyncio
import json
import sys

import nats
from aiohttp import web


async def main(nats_port, port):
    connection = await nats.connect(f"nats://127.0.0.1:{nats_port}")
    jetstream = connection.jetstream()

    async def publish(request):
        body = await request.json()
        stored = await jetstream.publish(body["subject"], json.dumps(body["message"]).encode())
        return web.json_response({"status": "success", "data": {"stream": stored.stream, "sequence": stored.seq}})

    application = web.Application()
    application.router.add_post("/api/v1/broker/publish", publish)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
