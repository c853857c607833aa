"""Makes each idempotency key new.

A key that is used again gets the link that its first request made, even when that link was deleted since: so the contract
wants it (tests/tests/http holds it). Schemathesis would take such a link for a new one and miss it. A key that is to be
refused stays as it is.
"""

import uuid

import schemathesis

KEY = "Idempotency-Key"
KEY_CHARS_MAX = 255
SUFFIX_CHARS = 32


@schemathesis.hook
def before_call(context, case, kwargs):
    key = (case.headers or {}).get(KEY)
    room = KEY_CHARS_MAX - SUFFIX_CHARS
    if isinstance(key, str) and 1 <= len(key) <= KEY_CHARS_MAX and all("!" <= char <= "~" for char in key):
        case.headers[KEY] = key[:room] + uuid.uuid4().hex
