"""Fetches http(s) media into memory, from public addresses only.

A page that takes URLs from strangers must not become their way into the network it stands in. So every hop is
resolved here, every address of the host is checked, and the connection goes to an address that was checked: a
name that resolves differently a moment later gains nothing. Proxies named in the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from omni_backend import defaults
from omni_backend.media_values import bad_media, bytes_text, seconds_text

_CHUNK: Final = 64 * 1024
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_HEADERS: Final = {
    "User-Agent": "qwen3-omni-demo",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Fetcher:
    """Fetches within `timeout` seconds in all, following at most `redirects` redirects.

    `allowed` says of a numeric address whether it may be reached; anything but the default is for tests and
    closed networks.
    """

    def __init__(
        self,
        *,
        timeout: float = defaults.URL_TIMEOUT_SECONDS,
        redirects: int = 5,
        allowed: Callable[[str], bool] | None = None,
    ) -> None:
        self._timeout = timeout
        self._redirects = redirects
        self._allowed = allowed or is_public

    def fetch(self, url: str, name: str, max_bytes: int) -> bytes:
        """What `url` holds. Raises BadMedia: not reachable, not allowed, too slow, more than `max_bytes`."""
        with _Deadline(self._timeout) as deadline:
            try:
                for _ in range(self._redirects + 1):
                    content, target = self._get(url, name, max_bytes, deadline)
                    if target is None:
                        return content
                    url = target
            except (OSError, http.client.HTTPException, ValueError) as error:
                if deadline.passed or isinstance(error, TimeoutError):
                    raise bad_media("url_slow", name, limit=seconds_text(self._timeout)) from error
                raise bad_media("url_failed", name, detail=repr(error)) from error
        raise bad_media("url_redirects", name, limit=self._redirects)

    def _get(self, url: str, name: str, max_bytes: int, deadline: _Deadline) -> tuple[bytes, str | None]:
        """One hop: the content, or the address of the next hop."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise bad_media("bad_address", name)
        connection = self._connect(parts, parts.hostname, name, deadline)
        with closing(connection):
            target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
                "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?") if parts.query else ""
            )
            connection.request("GET", target, headers=_HEADERS)
            with connection.getresponse() as response:
                location = response.getheader("Location")
                if response.status in _REDIRECTS and location:
                    return b"", urljoin(url, location)
                if not 200 <= response.status < 300:
                    raise bad_media("url_status", name, status=response.status)
                return _read(response, name, max_bytes, deadline), None

    def _connect(self, parts: SplitResult, host: str, name: str, deadline: _Deadline) -> http.client.HTTPConnection:
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        raw = self._open_socket(host, port, name, deadline)
        deadline.watch(raw)
        if not secure:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = raw
            return connection
        try:
            wrapped = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        except BaseException:
            raw.close()
            raise
        deadline.watch(wrapped)
        connection = http.client.HTTPSConnection(host, port)
        connection.sock = wrapped
        return connection

    def _open_socket(self, host: str, port: int, name: str, deadline: _Deadline) -> socket.socket:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if not all(self._allowed(str(entry[4][0])) for entry in found):
            raise bad_media("url_private", name)
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, address in found:
            candidate = socket.socket(family, kind, protocol)
            try:
                candidate.settimeout(self._timeout)
                deadline.watch(candidate)
                candidate.connect(address)
                return candidate
            except OSError as error:
                candidate.close()
                failure = error
                if deadline.passed:
                    break
        raise failure


def is_public(text: str) -> bool:
    """Whether the numeric address belongs to the public internet, an IPv4 address inside it included."""
    address: Address = ipaddress.ip_address(text.split("%", 1)[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        elif address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _read(response: http.client.HTTPResponse, name: str, max_bytes: int, deadline: _Deadline) -> bytes:
    if response.length is not None and response.length > max_bytes:
        raise bad_media("too_large", name, found=bytes_text(response.length), limit=bytes_text(max_bytes))
    content = bytearray()
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise bad_media("larger", name, limit=bytes_text(max_bytes))
    if deadline.passed:
        raise TimeoutError
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(content)


class _Deadline:
    """Ends the watched connection when the time is up, however slowly the other side talks."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        """The connection to end; replaces the one before. Raises TimeoutError when the time is up already."""
        with self._lock:
            self._socket = connection
            if self.passed:
                raise TimeoutError

    def _end(self) -> None:
        with self._lock:
            self.passed = True
            if self._socket is not None:
                # Not SSLSocket.shutdown, which would pull the TLS state from under the reading thread.
                with suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
