"""The certificate that a server shows to whoever connects."""

from __future__ import annotations

import asyncio
import ssl


async def served_certificate(address: str, port: int, name: str) -> bytes:
    """What the server at `address`:`port` shows, as PEM. `name` is the server's, where a name can be sent along.

    Nothing of it is verified: a certificate that has ended is to be seen, too. Raises `OSError` where no TLS is
    spoken, and needs a deadline of the caller's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    except EOFError as error:
        raise ConnectionError("the connection was ended") from error
    try:
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return ssl.DER_cert_to_PEM_cert(found).encode()
    finally:
        writer.transport.abort()
