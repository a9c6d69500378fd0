"""HTTP without TLS, as all of the tests speak it."""

import ssl

# A client makes a context of its own unless it is given one, and to load the system's certificates into it takes
# longer than most requests of a test. This one trusts nobody: it is never used.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
