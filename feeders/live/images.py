"""The image of a live item: base64 bytes, a path, or a URL that is fetched within limits and never from inside."""

from __future__ import annotations

import base64
import binascii
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from mrse_model.errors import InputError

LARGEST = 20_000_000  # bytes
SECONDS = 10.0  # for all of a fetch
REDIRECTS = 3
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")  # what lies outside may lead to any IPv4 address (NAT64, ::127.0.0.1)


def image_of(record: dict[str, Any], folder: Path) -> bytes | None:
    """The image that a record names by `image` (base64), `image_path` (relative to `folder`) or `image_url`; None for
    none. Raises InputError.
    """
    if text := record.get("image"):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InputError("must be base64", field="image", fix="Encode the bytes of a JPEG, PNG or WebP") from None
    if name := record.get("image_path"):
        file = folder / str(name)
        if not file.is_file() or file.stat().st_size > LARGEST:
            raise InputError(f"there is no file {name!r} of at most {LARGEST // 10**6} MB", field="image_path")
        return file.read_bytes()
    return fetch(str(record["image_url"])) if record.get("image_url") else None


def fetch(url: str, *, inside: bool = False) -> bytes:
    """The bytes at an http or https URL. Raises InputError for anything else, for a host inside a network (`inside`
    allows it, for tests), for more than 20 MB or 10 s, and for any status but 200.

    The address is looked up once and that one is asked, so that a name cannot lead elsewhere the second time.
    """
    until = time.monotonic() + SECONDS
    for _ in range(REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"not an http or https URL: {url!r}", field="image_url")
        connection = _connect(parts.scheme, parts.hostname, parts.port, url, inside)
        try:
            with _cut_off(connection.sock, until):
                if parts.scheme == "https":
                    context = ssl.create_default_context()
                    connection.sock = context.wrap_socket(
                        connection.sock, server_hostname=parts.hostname, do_handshake_on_connect=False
                    )
                    connection.sock.do_handshake()
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("GET", path, headers={"Host": parts.netloc.rpartition("@")[2], "User-Agent": "mrse"})
                response = connection.getresponse()
                if response.status in (301, 302, 303, 307, 308) and (target := response.getheader("Location")):
                    url = urljoin(url, target)
                    continue
                if response.status != 200:
                    raise InputError(f"{url} answers with HTTP status {response.status}", field="image_url")
                return _read(response, url, until)
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"{url} cannot be read ({error})", field="image_url") from None
        finally:
            connection.close()
    raise InputError(f"{url} redirects too many times", field="image_url")


def _connect(scheme: str, host: str, port: int | None, url: str, inside: bool) -> http.client.HTTPConnection:
    port = port or (443 if scheme == "https" else 80)
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
        if not inside and not _is_public(str(address)):
            raise InputError(f"{host} is an address of a private network", field="image_url", fix="Give a public URL")
        connection = http.client.HTTPConnection(str(address), port, timeout=SECONDS)
        connection.connect()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{url} cannot be reached ({error})", field="image_url") from None
    return connection


def _is_public(address: str) -> bool:
    """Whether an IP address is of the Internet, in no form of a private one."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in PUBLIC_IPV6 or ip.sixtofour):
        return False
    return ip.is_global and not ip.is_multicast


@contextmanager
def _cut_off(connection: socket.socket, until: float) -> Iterator[None]:
    """Ends the connection at that time, whatever it waits for: a server that sends a byte now and then, too."""
    with connection.dup() as same:  # which neither TLS nor http.client takes away meanwhile

        def cut() -> None:
            with suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, until - time.monotonic()), cut)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _read(response: http.client.HTTPResponse, url: str, until: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size <= LARGEST and (part := response.read(65536)):
        size += len(part)
        parts.append(part)
    if size > LARGEST or time.monotonic() > until:  # a connection that was cut off may look like the end
        raise InputError(f"{url} exceeds {LARGEST // 10**6} MB or {SECONDS:.0f} s", field="image_url")
    return b"".join(parts)
