"""What the page costs: how late words are seen and what the server works for them, in a real Chromium.

    python -m benchmarks.page [--messages 10 100 400] [--sessions 1 4 8 16] [--rounds 3] [--seconds 8]

An engine that is only a clock writes the time, 50 words a second. The page tells for each word how late it stands in
the live bubble (the server looks for news every 0.12 s), and how late the whole answer stands in the history.

(1) One visitor, whose conversation is longer and longer. Aim: flat.
(2) More and more visitors at once: one page, measured, that asks while programs at `/chat` are being answered; these
    cost the server as much, and as many browsers would measure the machine instead.

Server and visitors are processes of their own. Medians of the rounds, the first left out; what counts are the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import statistics
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from gradio_client import Client
from playwright.sync_api import Page, sync_playwright

from omni_backend import (
    Backend,
    BackendOptions,
    Capabilities,
    ChatRequest,
    Done,
    Message,
    StreamEvent,
    TextDelta,
    TextPart,
    Usage,
)
from omni_backend.base import ReportProgress
from omni_ui.cli import Settings
from omni_ui.server import App
from omni_ui.sessions import Entry
from tools.running_app import free_port

WORDS_A_SECOND: Final = 50
BROWSER: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
SIZE: Final = {"width": 1280, "height": 800}
PATIENCE_MS: Final = 120_000

QUESTION: Final = "And what comes after that? I should like to hear a little more about it."
ANSWER: Final = (
    "It goes on in **two** ways:\n\n1. The first is short, and most people take it.\n2. The second is longer, but it "
    "leads past the river.\n\n```python\nfor step in way:\n    print(step)\n```\n\nThat is all that I can tell."
)

WATCH: Final = """() => {
  const seen = new Set();
  const report = window.report = { lags: [], updates: 0, sent: null, kept: null };
  const rows = (kind) => document.querySelectorAll(`#omni-history .${kind}-row`);
  const before = { user: rows("user").length, bot: rows("bot").length };
  const since = (stamp) => (Date.now() - stamp + 1e6) % 1e6;
  let pressed = 0;
  addEventListener("keydown", () => { pressed ||= Date.now(); }, { capture: true, once: true });
  const observer = new MutationObserver((changes) => {
    const news = (document.getElementById("omni-live")?.textContent.match(/\\d{6}/g) ?? [])
      .filter((word) => !seen.has(word));
    for (const word of news) {
      seen.add(word);
      report.lags.push(since(Number(word)));
    }
    if (news.length) report.updates += 1;
    const history = document.getElementById("omni-history");
    if (!changes.some(({ target }) => history?.contains(target))) return;
    if (report.sent === null && rows("user").length > before.user) report.sent = Date.now() - pressed;
    const words = [...rows("bot")].slice(before.bot).at(-1)?.textContent.match(/\\d{6}/g);
    if (!words) return;
    report.kept = since(Number(words.at(-1)));
    observer.disconnect();
  });
  observer.observe(document.body, { childList: true, subtree: true, characterData: true });
}"""
"""Writes into `report`: each word's lag, when the question and the answer stood in the history; all in ms."""


class Clock(Backend):
    """Says what time it is: milliseconds, the last six digits of them."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self._words = words

    def _load(self, report: ReportProgress) -> Capabilities:
        return Capabilities(model="a clock", engine="none", max_concurrency=1000)

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        started = time.monotonic()
        for number in range(self._words):
            await asyncio.sleep(max(0.0, started + number / WORDS_A_SECOND - time.monotonic()))
            yield TextDelta(f"{int(time.time() * 1000) % 1_000_000:06d} ")
        yield Done("stop", Usage(prompt_tokens=1, completion_tokens=self._words))


def serve(orders: Connection, words: int) -> None:
    """The server's process: sends its address, then its CPU seconds after each order that it has carried out."""
    app = App(lambda _: Clock(words), Settings(BackendOptions("benchmark"), server_port=free_port()))
    orders.send(app.url)
    while (order := orders.recv()) is not None:
        id, messages = order
        if messages:
            session = app.sessions.get(id)
            assert session is not None
            session.entries = tuple(entry(number) for number in range(messages))
        orders.send(time.process_time())
    app.close()
    app.backend.close()


def entry(number: int) -> Entry:
    """One message of a long conversation; no two are the same."""
    if number % 2:
        return Entry(Message("assistant", (TextPart(f"{ANSWER} ({number})"),)))
    return Entry(Message("user", (TextPart(f"{QUESTION} ({number})"),)))


def attend(orders: Connection, url: str, count: int) -> None:
    """The visitors' process: as many as an order says ask again and again, until the next order.

    Sends a word when all of them are being answered, and one when all have stopped.
    """
    clients = [Client(url, verbose=False) for _ in range(count)]
    orders.send(None)
    while (asking := orders.recv()) is not None:
        enough = threading.Event()
        answered = [threading.Event() for _ in range(asking)]
        with ThreadPoolExecutor(count) as threads:
            for client, event in zip(clients, answered, strict=False):
                threads.submit(ask_on, client, event, enough)
            for event in answered:
                event.wait()
            orders.send(None)
            orders.recv()
            enough.set()
        orders.send(None)


def ask_on(client: Client, answered: threading.Event, enough: threading.Event) -> None:
    """Asks until it is enough; `answered` is set by the first words."""
    while not enough.is_set():
        job = client.submit(message={"text": QUESTION, "files": []}, new_conversation=True, api_name="/chat")
        for _ in job:
            answered.set()
            if enough.is_set():
                job.cancel()
                break


@contextmanager
def process(work: Callable[..., None], *values: Any) -> Iterator[tuple[Connection, Any]]:
    """Runs `work` with one end of a pipe; the other end, and the first that comes out of it."""
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=work, args=(there, *values))
    worker.start()
    try:
        yield here, here.recv()
    finally:
        here.send(None)
        worker.join()


@dataclass(frozen=True, slots=True)
class Cost:
    """One turn. Milliseconds, but for `cpu`: seconds that the server worked for all visitors."""

    lag: float
    late: float
    """The lag that one word in twenty exceeds."""
    sent: float
    kept: float
    updates: float
    cpu: float


class Bench:
    """A page and the other visitors of one server."""

    def __init__(self, page: Page, url: str, server: Connection, visitors: Connection) -> None:
        self._page, self._url, self._server, self._visitors = page, url, server, visitors

    def turn(self, messages: int, sessions: int) -> Cost:
        """One answer below `messages` messages while so many sessions are answered."""
        self._begin(messages)
        self._page.evaluate(WATCH)
        if sessions > 1:
            self._visitors.send(sessions - 1)
            self._visitors.recv()
        before = self._cpu()
        self._page.locator("#omni-composer textarea").press("Enter")
        self._page.wait_for_function("report.kept !== null", timeout=PATIENCE_MS)
        cpu = self._cpu() - before
        if sessions > 1:
            self._visitors.send("enough")
            self._visitors.recv()
        report = self._page.evaluate("report")
        percent = statistics.quantiles(report["lags"], n=20)
        return Cost(percent[9], percent[18], report["sent"], report["kept"], report["updates"], cpu)

    def _begin(self, messages: int) -> None:
        """A conversation of `messages` messages, come back to by a reload."""
        self._cpu(self._page.evaluate("omni.session"), messages)
        self._open()
        rows = self._page.locator("#omni-history .bot-row")
        rows.nth(messages // 2 - 1).wait_for(timeout=PATIENCE_MS)
        self._page.locator("#omni-composer textarea").fill(QUESTION)

    def _open(self) -> None:
        self._page.goto(self._url)
        self._page.locator(".omni-ready").wait_for(timeout=PATIENCE_MS)

    def first_turn(self) -> None:
        """Makes the conversation."""
        self._open()
        self._page.locator("#omni-composer textarea").fill(QUESTION)
        self._page.evaluate(WATCH)
        self._page.locator("#omni-composer textarea").press("Enter")
        self._page.wait_for_function("report.kept !== null", timeout=PATIENCE_MS)

    def _cpu(self, id: str = "", messages: int = 0) -> float:
        self._server.send((id, messages))
        seconds: float = self._server.recv()
        return seconds


def table(title: str, costs: dict[int, Cost], sessions: Callable[[int], int]) -> str:
    """One line for each count, with its ratios to the first."""
    first = next(iter(costs.values()))
    lines = [
        f"{title:>9}{'lag p50':>9}{'p95 ms':>8}{'× first':>9}{'question ms':>13}{'answer ms':>11}{'× first':>9}"
        f"{'updates':>9}{'server CPU s':>14}{'ms an update':>14}{'× first':>9}"
    ]

    def each(count: int, cost: Cost) -> float:
        return 1000 * cost.cpu / (cost.updates * sessions(count))

    floor = each(next(iter(costs)), first)
    for count, cost in costs.items():
        lines.append(
            f"{count:>9}{cost.lag:>9.0f}{cost.late:>8.0f}{cost.late / first.late:>9.2f}{cost.sent:>13.0f}"
            f"{cost.kept:>11.0f}{cost.kept / first.kept:>9.2f}{cost.updates:>9.0f}{cost.cpu:>14.2f}"
            f"{each(count, cost):>14.1f}{each(count, cost) / floor:>9.2f}"
        )
    return "\n".join(lines)


def measure(bench: Bench, cases: dict[int, tuple[int, int]], rounds: int) -> dict[int, Cost]:
    """The medians of each case: messages and sessions, by what is shown for it. The cases take turns."""
    costs: dict[int, list[Cost]] = {count: [] for count in cases}
    for number in range(rounds + 1):
        for count, case in cases.items():
            cost = bench.turn(*case)
            if number:
                costs[count].append(cost)
    return {
        count: Cost(*(statistics.median(values) for values in zip(*map(astuple, each), strict=True)))
        for count, each in costs.items()
    }


def main() -> None:
    """Measures and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, nargs="+", default=[10, 100, 400], help="default: %(default)s")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 8, 16], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="after one to warm up (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each answer (default: %(default)s)")
    chosen = parser.parse_args()
    words, few = round(chosen.seconds * WORDS_A_SECOND), chosen.messages[0]
    with (
        process(serve, words) as (server, url),
        process(attend, url, max(1, max(chosen.sessions) - 1)) as (visitors, _),
        sync_playwright() as playwright,
    ):
        program = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=list(BROWSER))
        page = browser.new_page(viewport=SIZE, locale="en-US")  # type: ignore[arg-type]
        bench = Bench(page, url, server, visitors)
        bench.first_turn()
        lengths = measure(bench, {count: (count, 1) for count in chosen.messages}, chosen.rounds)
        print(table("messages", lengths, lambda _: 1), end="\n\n", flush=True)
        crowds = measure(bench, {count: (few, count) for count in chosen.sessions}, chosen.rounds)
        print(table("sessions", crowds, lambda count: count))
        browser.close()


if __name__ == "__main__":
    main()
