"""How schemathesis writes what it does not know."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_, value):
    return json.dumps(value).encode() + b"\n"
