"""Where media may come from: folders, file: and data: URLs, and http from public addresses only."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from omni_backend import BadMedia, Limits, MediaPart
from omni_backend.media import MediaLoader
from omni_backend.media_fetch import Fetcher, is_public
from tests.media_files import BLUE, RED, image_file, sound_file

PNG = image_file()


def refused(call: Callable[[], object]) -> str:
    """The key of the sentence that says why not."""
    with pytest.raises(BadMedia) as caught:
        call()
    return caught.value.phrase.key


# Local files


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of uploads, and a picture outside it."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / "photo.png").write_bytes(PNG)
    outside = tmp_path / "secret.png"
    outside.write_bytes(PNG)
    return uploads, outside


def test_files_inside_a_root_are_read(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    uploads, _ = folders
    (uploads / "two words é.png").write_bytes(PNG)
    (uploads / "link.png").symlink_to(uploads / "photo.png")
    loader = MediaLoader(roots=(uploads.parent / "elsewhere", uploads))
    monkeypatch.chdir(uploads)
    for path in (
        str(uploads / "photo.png"),
        "photo.png",
        str(uploads / "link.png"),
        str(uploads / "nowhere" / ".." / "photo.png"),
        f"file://{uploads}/photo.png",
        f"file://localhost{uploads}/photo.png",
        "file://" + quote(f"{uploads}/two words é.png"),
    ):
        assert loader.image(MediaPart("image", path)).getpixel((9, 9)) == RED


def test_nothing_outside_the_roots_is_read_or_betrayed(folders: tuple[Path, Path]) -> None:
    uploads, outside = folders
    (uploads / "link.png").symlink_to(outside)
    (uploads / "up").symlink_to(uploads.parent)
    (uploads / "loop").symlink_to(uploads / "loop")
    sibling = uploads.parent / "uploads-of-others"
    sibling.mkdir()
    (sibling / "photo.png").write_bytes(PNG)
    loader = MediaLoader(roots=(uploads,))
    for path in (
        str(outside),
        f"{uploads}/../secret.png",
        f"{uploads}/../nothing-here.png",
        f"{uploads}/link.png",
        f"{uploads}/up/secret.png",
        f"{sibling}/photo.png",
        f"file://{outside}",
        f"file://{uploads}/..%2Fsecret.png",
        f"file://{uploads}/%2e%2e/secret.png",
        "/etc/passwd",
        "/dev/stdin",
        "/proc/self/environ",
    ):
        with pytest.raises(BadMedia) as caught:
            loader.probe(MediaPart("image", path, "photo"))
        assert caught.value.phrase.key == "media.not_allowed", path
        assert caught.value.text() == "photo: files from this place may not be used."
        assert caught.value.detail == ""
    assert refused(lambda: loader.probe(MediaPart("image", f"{uploads}/loop"))).startswith("media.not_")


def test_what_is_no_ordinary_file_cannot_be_opened(folders: tuple[Path, Path]) -> None:
    uploads, _ = folders
    os.mkfifo(uploads / "pipe")
    loader = MediaLoader(roots=(uploads,))
    for name in ("absent.png", "pipe", ".", "a\0b", "x" * 5000):
        assert refused(lambda name=name: loader.probe(MediaPart("image", f"{uploads}/{name}"))) in (  # type: ignore[misc]
            "media.not_found",
            "media.not_allowed",
        )
    assert refused(lambda: MediaLoader().probe(MediaPart("image", "/dev/zero"))) == "media.not_found"


def test_a_file_is_hashed_again_only_when_it_changed(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    real = hashlib.file_digest

    def count(file: Any, name: str) -> Any:
        hashed.append(name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", count)
    part = MediaPart("image", str(folders[0] / "photo.png"))
    Path(part.path).write_bytes(image_file("BMP", RED))
    loader = MediaLoader()
    for _ in range(3):
        assert loader.image(part).getpixel((9, 9)) == RED
    assert hashed == ["sha256"]
    before = Path(part.path).stat()
    Path(part.path).write_bytes(image_file("BMP", BLUE))
    os.utime(part.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert Path(part.path).stat().st_size == before.st_size
    assert loader.image(part).getpixel((9, 9)) == BLUE
    assert len(hashed) == 2


@pytest.mark.parametrize(
    "path",
    [
        "ftp://host/a.png",
        "concat://a|b",
        "file://host/a.png",
        "http://",
        "http://[::1/a.png",
        "https:///a.png",
        "file://[x/a.png",
    ],
)
def test_other_addresses_are_refused(path: str) -> None:
    assert refused(lambda: MediaLoader().probe(MediaPart("image", path))) in (
        "media.bad_address",
        "media.url_failed",
    )


# data: URLs


@pytest.mark.parametrize(
    "path",
    [
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        "DATA:;BASE64," + base64.b64encode(PNG).decode(),
        "data:image/png;name=x.png;base64," + quote(base64.b64encode(PNG).decode()),
        "data:image/png;base64," + "\n".join(base64.b64encode(PNG).decode()[i : i + 76] for i in range(0, 9999, 76)),
        "data:image/png," + quote(PNG),
    ],
)
def test_data_urls(path: str) -> None:
    assert MediaLoader().image(MediaPart("image", path)).getpixel((9, 9)) == RED


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("data:image/png;base64,%%%", "media.bad_data_url"),
        ("data:image/png;base64,abc", "media.bad_data_url"),
        ("data:image/png", "media.bad_data_url"),
        ("data:image/png;base64,", "media.empty"),
        ("data:,words", "media.unknown"),
        ("data:;base64," + base64.b64encode(bytes(3000)).decode(), "media.too_large"),
    ],
)
def test_bad_data_urls(path: str, key: str) -> None:
    loader = MediaLoader(Limits(file_bytes=2999))
    assert refused(lambda: loader.probe(MediaPart("image", path))) == key


# http


class Site(ThreadingHTTPServer):
    """A web server on a loopback address with pages of bad manners; `hosts` records the Host headers."""

    daemon_threads = True
    done: threading.Event
    hosts: list[str]
    paths: list[str]

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"


class Pages(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.hosts.append(self.headers["Host"])
        self.server.paths.append(self.path)
        getattr(self, "page_" + self.path.strip("/").split("/")[0].split("?")[0].split("%")[0])()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, content: bytes, length: int | None = None, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def page_photo(self) -> None:
        self.answer(PNG, len(PNG))

    def page_unsized(self) -> None:
        self.answer(PNG)

    def page_short(self) -> None:
        self.answer(PNG, len(PNG) + 10)

    def page_empty(self) -> None:
        self.answer(b"", 0)

    def page_missing(self) -> None:
        self.answer(b"no", 2, status=404)

    def page_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.done.is_set():
            try:
                self.wfile.write(bytes(1024))
            except OSError:
                self.server.done.set()

    def page_silent(self) -> None:
        self.server.done.wait(20)

    def page_drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.done.wait(0.01):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def page_moved(self) -> None:
        self.answer(b"", 0, status=302, Location="/photo/after")

    def page_round(self) -> None:
        self.answer(b"", 0, status=307, Location="/round")

    def page_inside(self) -> None:
        self.answer(b"", 0, status=301, Location=self.server.url("/photo", "127.0.0.2"))

    def page_metadata(self) -> None:
        self.answer(b"", 0, status=302, Location="http://169.254.169.254/latest/meta-data")

    def page_scheme(self) -> None:
        self.answer(b"", 0, status=302, Location="file:///etc/passwd")


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site(("127.0.0.1", 0), Pages)
    server.done, server.hosts, server.paths = threading.Event(), [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.done.set()
    server.shutdown()
    thread.join()
    server.server_close()


def here(address: str) -> bool:
    """Stands in for a public address."""
    return address == "127.0.0.1"


def get(site: Site, page: str, *, max_bytes: int = 10**6, timeout: float = 20.0) -> bytes:
    return Fetcher(timeout=timeout, allowed=here).fetch(site.url(page), "photo", max_bytes)


@pytest.mark.parametrize("page", ["/photo", "/unsized", "/moved"])
def test_http_is_fetched(page: str, site: Site) -> None:
    assert get(site, page) == PNG


def test_a_fetched_file_is_used_like_any_other_and_fetched_once(site: Site) -> None:
    loader = MediaLoader(fetcher=Fetcher(allowed=here))
    part = MediaPart("image", site.url("/photo/holiday.png"))
    assert loader.probe(part).size == (64, 48)
    assert loader.image(part).getpixel((9, 9)) == RED
    assert site.paths == ["/photo/holiday.png"]
    with pytest.raises(BadMedia, match=r"holiday\.png is an image"):
        loader.audio(part)


def test_paths_with_spaces_and_accents(site: Site) -> None:
    assert get(site, "/photo/two words/é%20.png?q=1 2") == PNG
    assert site.paths == ["/photo/two%20words/%C3%A9%20.png?q=1%202"]


@pytest.mark.parametrize(
    ("page", "key"),
    [
        ("/missing", "media.url_status"),
        ("/short", "media.url_failed"),
        ("/round", "media.url_redirects"),
        ("/inside", "media.url_private"),
        ("/metadata", "media.url_private"),
        ("/scheme", "media.bad_address"),
    ],
)
def test_http_failures_are_named(page: str, key: str, site: Site) -> None:
    assert refused(lambda: get(site, page)) == key


def test_an_empty_answer_is_an_empty_file(site: Site) -> None:
    loader = MediaLoader(fetcher=Fetcher(allowed=here))
    assert refused(lambda: loader.probe(MediaPart("image", site.url("/empty")))) == "media.empty"


def test_the_size_limit_holds_while_it_streams(site: Site) -> None:
    with pytest.raises(BadMedia, match=r"photo is larger than 9\.766 kB"):
        get(site, "/endless", max_bytes=10_000)
    with pytest.raises(BadMedia, match=rf"photo has {len(PNG)} B; at most 99 B"):
        get(site, "/photo", max_bytes=99)
    assert get(site, "/photo", max_bytes=len(PNG)) == PNG


@pytest.mark.parametrize("page", ["/silent", "/drip"])
def test_the_time_limit_holds_however_slowly_it_drips(page: str, site: Site) -> None:
    with pytest.raises(BadMedia, match=r"photo could not be fetched within 0\.3 s"):
        get(site, page, timeout=0.3)


def test_a_server_that_is_not_there(site: Site) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.png"
        assert refused(lambda: Fetcher(allowed=here).fetch(url, "x", 99)) == "media.url_failed"


@pytest.mark.parametrize(
    "host",
    [
        *["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "127.1", "0"],
        *["10.0.0.1", "169.254.169.254", "192.168.0.1", "172.16.0.1", "100.64.0.1", "[fe80::1]", "[fc00::1]"],
        "224.0.0.1",
    ],
)
def test_private_addresses_are_refused_by_default(host: str, site: Site) -> None:
    part = MediaPart("image", site.url("/photo", host), "photo")
    with pytest.raises(BadMedia) as caught:
        MediaLoader().probe(part)
    assert caught.value.phrase.key == "media.url_private"
    assert site.hosts == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *[("8.8.8.8", True), ("2606:4700:4700::1111", True), ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True)],
        *[("64:ff9b::a00:1", False), ("2002:7f00:1::", False), ("2001:0:4136:e378::", False), ("fec0::1", False)],
        *[("::", False), ("::7f00:1", False), ("fe80::1%eth0", False), ("ff02::1", False), ("240.0.0.1", False)],
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Makes names resolve to `answers`, one after the other; returns the names asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        return real(answers[len(asked) - 1], port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_a_name_of_a_private_address_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1")
    assert refused(lambda: Fetcher().fetch(site.url("/photo", "media.example"), "x", 999)) == "media.url_private"
    assert site.hosts == []


def test_the_connection_goes_to_the_address_that_was_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    checked = []

    def check(address: str) -> bool:
        checked.append(address)
        return here(address)

    fetched = Fetcher(allowed=check).fetch(site.url("/photo", "media.example"), "x", 999)
    assert fetched == PNG
    assert (asked, checked) == (["media.example"], ["127.0.0.1"])
    assert site.hosts == [f"media.example:{site.server_port}"]


def test_one_private_address_among_others_is_one_too_many(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def both(host: str, port: int, **options: Any) -> Any:
        return real("127.0.0.1", port, **options) + real("127.0.0.2", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", both)
    fetcher = Fetcher(allowed=here)
    assert refused(lambda: fetcher.fetch(site.url("/photo", "media.example"), "x", 999)) == "media.url_private"


def test_tls_asks_for_the_certificate_of_the_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, ssl.VerifyMode, object]] = []

    def wrap(context: ssl.SSLContext, plain: socket.socket, server_hostname: object) -> socket.socket:
        asked.append((context.check_hostname, context.verify_mode, server_hostname))
        return plain  # the site speaks plain http

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap)
    resolve_to(monkeypatch, "127.0.0.1")
    url = site.url("/photo", "media.example").replace("http:", "https:")
    assert Fetcher(allowed=here).fetch(url, "x", 999) == PNG
    assert asked == [(True, ssl.CERT_REQUIRED, "media.example")]


def test_user_names_in_addresses_are_refused(site: Site) -> None:
    url = site.url("/photo", "someone:secret@127.0.0.1")
    assert refused(lambda: Fetcher(allowed=here).fetch(url, "x", 999)) == "media.bad_address"


def test_a_sound_by_data_url_is_decoded_once() -> None:
    loader = MediaLoader()
    part = MediaPart("audio", "data:audio/wav;base64," + base64.b64encode(sound_file()).decode())
    assert loader.audio(part) is loader.audio(part)
    assert loader.decodes == 1
