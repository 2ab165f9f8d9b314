"""Finding a server, its model, and what it can do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse

from omni_backend import (
    BackendOptions,
    BackendUnavailable,
    Capabilities,
    Loading,
    MediaType,
    ReasoningDelta,
    TextDelta,
    create_backend,
)
from omni_backend.server_backend import ServerBackend
from omni_backend.server_client import Address
from omni_backend.server_facts import ServerFacts
from tests.fake_server import FakeServer, Nature, Refusal, fake_server
from tests.waiting import wait_until

STANDARD = frozenset(
    {
        "model",
        "messages",
        "temperature",
        "top_p",
        "max_tokens",
        "stream",
        "stream_options",
        "seed",
        "modalities",
        "audio",
    }
)
CONTINUING = STANDARD | {"continue_final_message", "add_generation_prompt"}
"""The arguments that OpenAI's own API knows."""


@contextmanager
def connected(server: FakeServer, url: str | None = None, **options: Any) -> Iterator[ServerBackend]:
    chosen: dict[str, Any] = {"generate_audio": True, "server_url": url or server.url} | options
    backend = ServerBackend(BackendOptions("", **chosen), patience=0.0)
    try:
        yield backend
    finally:
        backend.close()


def asked(nature: Nature, **options: Any) -> tuple[Capabilities, ServerFacts]:
    """What a server of this kind is found to do."""
    with fake_server(nature) as server, connected(server, **options) as backend:
        return backend.wait_until_ready(), backend.facts


def refused(nature: Nature, **options: Any) -> BackendUnavailable:
    """Why a server of this kind cannot be used."""
    with fake_server(nature) as server, connected(server, **options) as backend:
        with pytest.raises(BackendUnavailable) as caught:
            backend.wait_until_ready()
        return caught.value


# Addresses


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        (" localhost:8000/ ", "http://localhost:8000"),
        ("https://host/compatible-mode/v1/chat/completions", "https://host/compatible-mode/v1"),
    ],
)
def test_addresses_as_people_write_them(written: str, url: str) -> None:
    assert Address(written).url == url


@pytest.mark.parametrize("written", ["", "ftp://host/v1", "http://", "http://host:port/v1", "http://[::1/v1"])
def test_what_is_no_address(written: str) -> None:
    with pytest.raises(BackendUnavailable, match="not the address"):
        Address(written)


def test_a_password_in_the_address_is_not_shown() -> None:
    assert Address("https://me:secret@host:8000/v1?key=secret").text == "https://host:8000/v1"


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("10.0.0.1", False), ("ex.org", False)],
)
def test_which_machine_it_is(host: str, local: bool) -> None:
    assert Address(f"http://{host}:8000/v1").is_local is local


def test_the_registry_makes_it() -> None:
    backend = create_backend("server", BackendOptions("", server_url="http://127.0.0.1:9/v1"))
    assert isinstance(backend, ServerBackend)
    backend.close()


@pytest.mark.parametrize("given", ["http://127.0.0.1:{port}", "127.0.0.1:{port}/", "http://127.0.0.1:{port}/v1/"])
def test_v1_may_be_left_out(given: str) -> None:
    with fake_server() as server, connected(server, given.format(port=server.port)) as backend:
        assert backend.wait_until_ready().model == "tiny"


def test_an_api_without_v1() -> None:
    assert asked(Nature(prefix=""))[0].model == "tiny"


# Reaching it


def test_nobody_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    backend = ServerBackend(BackendOptions("", server_url=f"http://127.0.0.1:{port}/v1"), patience=0.0)
    with pytest.raises(BackendUnavailable, match=f"{port}.* cannot be reached"):
        backend.wait_until_ready()
    backend.close()


def test_no_such_machine() -> None:
    backend = ServerBackend(BackendOptions("", server_url="http://no-such-machine.invalid/v1"))
    with pytest.raises(BackendUnavailable, match=r"no machine called no-such-machine\.invalid"):
        backend.wait_until_ready()
    backend.close()


def test_plain_where_secure_was_asked_for() -> None:
    with (
        fake_server() as server,
        connected(server, server.url.replace("http:", "https:")) as backend,
        pytest.raises(BackendUnavailable, match="secure connection"),
    ):
        backend.wait_until_ready()


def test_another_kind_of_server() -> None:
    page = HTMLResponse("<html>Welcome</html>")
    assert "not as an OpenAI" in str(refused(Nature(only={"/v1/models": page})))
    assert "not as an OpenAI" in str(refused(Nature(only={"/v1/models": JSONResponse({"models": []})})))


def test_a_server_that_lists_nothing_is_used_when_the_model_is_named() -> None:
    """Some hosted APIs have no list."""
    nature = Nature(only={"/v1/models": JSONResponse({"error": "no"}, 404)})
    assert asked(nature, model="tiny")[0].model == "tiny"


def test_a_server_that_is_still_starting_is_waited_for() -> None:
    with fake_server(Nature(unready=1)) as server:
        backend = ServerBackend(BackendOptions("", server_url=server.url), patience=60.0)
        backend.start()
        wait_until(lambda: isinstance(backend.status, Loading) and backend.status.step.key == "server.waiting")
        assert backend.wait_until_ready().model == "tiny"
        backend.close()


def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    server = FakeServer()
    server.stop()
    backend = ServerBackend(BackendOptions("", server_url=server.url), patience=60.0)
    backend.start()
    wait_until(lambda: isinstance(backend.status, Loading) and backend.status.step.key == "server.waiting")
    server.start()
    assert backend.wait_until_ready().model == "tiny"
    backend.close()
    server.stop()


def test_closing_does_not_wait_for_a_server() -> None:
    server = FakeServer()
    server.stop()
    backend = ServerBackend(BackendOptions("", server_url=server.url), patience=600.0)
    backend.start()
    wait_until(lambda: isinstance(backend.status, Loading) and backend.status.step.key == "server.waiting")
    backend.close()
    with pytest.raises(BackendUnavailable, match="shut down"):
        backend.wait_until_ready()


# The key


def test_the_key_is_given_and_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with fake_server(Nature(key="sk-secret")) as server:
        with connected(server, api_key="sk-secret") as backend:
            backend.wait_until_ready()
            shown = [repr(backend.facts), repr(backend._options), repr(backend.capabilities)]
        with connected(server, api_key="sk-wrong") as backend:
            with pytest.raises(BackendUnavailable) as caught:
                backend.wait_until_ready()
            assert "refuses the API key" in str(caught.value)
            shown += [str(caught.value), repr(caught.value), caught.value.detail]
    assert not [text for text in (*shown, caplog.text) if "sk-secret" in text or "sk-wrong" in text]


def test_no_key_where_one_is_needed() -> None:
    assert "refuses the API key" in str(refused(Nature(key="sk-secret")))


def test_keys_for_other_servers_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "of-another-server")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with fake_server() as server, connected(server) as backend:
        backend.wait_until_ready()
        assert server.headers
        assert not [headers for headers in server.headers if "of-another-server" in str(headers)]


# The model


def test_one_of_several_must_be_chosen() -> None:
    error = refused(Nature(models=("small", "large")))
    assert "small, large" in str(error)
    assert asked(Nature(models=("small", "large")), model="large")[0].model == "large"


def test_several_names_of_one_model() -> None:
    assert asked(Nature(models=("a", "b"), root="Qwen/Qwen3-Omni"))[0].model == "a"


def test_no_model_at_all() -> None:
    assert "offers no model" in str(refused(Nature(models=())))


def test_a_model_that_it_does_not_have() -> None:
    assert "does not have the model nope" in str(refused(Nature(), model="nope"))


def test_names_are_short() -> None:
    assert asked(Nature(models=("/models/Qwen3-Omni-30B-A3B-Instruct/",)))[0].model == "Qwen3-Omni-30B-A3B-Instruct"


@pytest.mark.parametrize(("length", "expected"), [(8192, 8192), (None, 32_768), (262_144, 32_768)])
def test_length_of_the_context(length: int | None, expected: int) -> None:
    assert asked(Nature(max_model_len=length))[0].limits.context_tokens == expected


@pytest.mark.parametrize(
    ("name", "reasoning", "words", "inputs"),
    [
        ("Qwen/Qwen3-Omni-30B-A3B-Instruct", False, True, {"image", "audio", "video"}),
        ("Qwen/Qwen3-Omni-30B-A3B-Thinking", True, True, {"image", "audio", "video"}),
        ("Qwen/Qwen3-Omni-30B-A3B-Captioner", False, False, {"audio"}),
    ],
)
def test_kinds_of_checkpoint_by_name(name: str, reasoning: bool, words: bool, inputs: set[MediaType]) -> None:
    can, _ = asked(Nature(models=(name,)))
    assert (can.reasoning, can.text_prompts, can.inputs) == (reasoning, words, frozenset(inputs))
    assert ("audio" in can.outputs) == name.endswith("Instruct")


def test_the_served_folder_is_read_where_this_machine_has_it(tiny_checkpoint: Path) -> None:
    with fake_server(Nature(root=str(tiny_checkpoint))) as server, connected(server) as backend:
        can = backend.wait_until_ready()
        assert backend.facts.listing.root == tiny_checkpoint
        assert can.default_sampling.temperature == 0.0  # of its generation_config.json
        assert "chelsie" in can.voices


# What it can do


def test_a_server_that_can_everything() -> None:
    can, facts = asked(Nature(voices=("aiden", "ethan")))
    assert can.engine.startswith("vLLM-Omni 1.2.3, 127.0.0.1:")
    assert can.inputs == {"image", "audio", "video"}
    assert can.outputs == {"text", "audio"}
    assert can.voices == ("ethan", "aiden")
    assert not can.notices
    assert can.max_concurrency > 1
    assert (facts.media_arguments, facts.exact_sound, facts.sound_form) == (True, True, "input_audio")


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_media_that_it_does_not_take(kind: Any) -> None:
    taken = Nature().takes - ({"input_audio", "audio_url"} if kind == "audio" else {f"{kind}_url"})
    can, _ = asked(Nature(takes=taken))
    assert can.inputs == {"image", "audio", "video"} - {kind}
    assert "does not take" in can.missing_inputs[kind].text()


@pytest.mark.parametrize("media_arguments", ["refused", "ignored"])
def test_a_server_that_takes_no_arguments_for_media(media_arguments: Any) -> None:
    can, facts = asked(Nature(media_arguments=media_arguments))
    assert not facts.media_arguments
    assert "video" in can.inputs
    assert [notice.key for notice in can.notices] == ["server.rough_films"]


def test_forms_of_sound() -> None:
    assert asked(Nature(float_sound=False))[1].exact_sound is False
    assert asked(Nature(owner="sglang"))[1].exact_sound is False
    only_urls = Nature(takes=frozenset({"image_url", "video_url", "audio_url"}))
    assert asked(only_urls)[1].sound_form == "audio_url"


@pytest.mark.parametrize("shape", ["content", "delta.audio", "second choice", "message"])
def test_speech_in_every_shape(shape: Any) -> None:
    can, _ = asked(Nature(speaks=shape))
    assert can.outputs == {"text", "audio"}
    assert can.voices == ("ethan", "chelsie", "aiden")


@pytest.mark.parametrize(
    ("voices", "format"), [(("Ethan", "Cherry"), "wav"), (("alloy", "verse"), "pcm16")], ids=["DashScope", "OpenAI"]
)
def test_speech_of_hosted_servers(voices: tuple[str, ...], format: str) -> None:
    can, facts = asked(Nature(voices=voices, knows=STANDARD, speaks="delta.audio", media_arguments="refused"))
    assert can.voices == voices
    assert facts.speech is not None
    assert facts.speech.format == format
    assert not facts.speech.top_level_voice
    assert not facts.more_sampling
    assert facts.streams_usage


def test_a_server_that_is_silent_has_a_reason() -> None:
    can, _ = asked(Nature(speaks=None))
    assert can.outputs == {"text"}
    assert "text only" in can.missing_outputs["audio"].text()


def test_a_list_of_voices_that_says_nothing() -> None:
    """As vLLM-Omni's server has it where it knows no names."""
    listing = {"/v1/audio/voices": JSONResponse({"voices": ["default"]})}
    assert asked(Nature(only=listing))[0].voices == ("ethan", "chelsie", "aiden")


def test_speech_that_is_switched_off_is_not_asked_for() -> None:
    with fake_server() as server, connected(server, generate_audio=False) as backend:
        can = backend.wait_until_ready()
        assert can.outputs == {"text"}
        assert "--generate-audio" in can.missing_outputs["audio"].text()
        assert not [body for body in server.requests if "audio" in body]


@pytest.mark.parametrize(
    ("unknown", "learned"),
    [
        (set(), {}),
        ({"modalities", "audio"}, {}),
        ({"stream_options"}, {"streams_usage": False}),
        ({"stream_options", "max_tokens"}, {"streams_usage": False, "limit_name": "max_completion_tokens"}),
    ],
)
def test_servers_that_know_few_arguments(unknown: set[str], learned: dict[str, Any]) -> None:
    knows = (STANDARD | {"max_completion_tokens"}) - unknown
    _, facts = asked(Nature(knows=knows, speaks=None))
    expected: dict[str, Any] = {"more_sampling": False, "streams_usage": True, "limit_name": "max_tokens"} | learned
    assert facts == replace(facts, **expected)


@pytest.mark.parametrize(
    ("nature", "form"),
    [
        (Nature(), "continue_final_message"),
        (Nature(owner="llamacpp", continues="always", speaks=None), "continue_final_message"),
        (Nature(owner="system", continues="partial", speaks=None), "partial"),
        (Nature(knows=CONTINUING, speaks=None), "continue_final_message"),
    ],
    ids=["vLLM", "llama.cpp", "DashScope", "a strict one"],
)
def test_how_answers_are_begun(nature: Nature, form: str) -> None:
    can, facts = asked(nature)
    assert facts.prefix_form == form
    assert can.no_answer_prefix is None


@pytest.mark.parametrize(
    "nature",
    [
        Nature(continues=None),
        Nature(continues=None, knows=STANDARD, speaks=None),
        Nature(knows=CONTINUING - {"stream_options"}, speaks=None),
    ],
    ids=["reads over it", "refuses it", "tells no lengths"],
)
def test_servers_whose_answers_cannot_be_begun(nature: Nature) -> None:
    can, facts = asked(nature)
    assert facts.prefix_form is None
    assert can.no_answer_prefix is not None
    assert "beginning of an answer" in can.no_answer_prefix.text()


def test_answers_of_thinking_models_are_not_begun() -> None:
    """What servers make of a beginning then differs: of the thought, of the answer, or of the other's words."""
    can, _ = asked(Nature(models=("Qwen3-Omni-30B-A3B-Thinking",), speaks=None))
    assert can.no_answer_prefix is not None
    assert "thinks" in can.no_answer_prefix.text()


def test_files_are_tried_only_where_the_server_is_here(tmp_path: Path) -> None:
    for reads in (True, False):
        _, facts = asked(Nature(files=reads), upload_roots=(tmp_path,))
        assert facts.file_urls is reads
        assert not list(tmp_path.iterdir())
    with fake_server(Nature(files=True)) as server, connected(server) as backend:
        backend.wait_until_ready()
        assert not backend.facts.file_urls
        assert "file:" not in str(server.requests)


@pytest.mark.parametrize(
    ("reasoning", "script", "inside"),
    [
        ("reasoning", [ReasoningDelta("Hm")], False),
        ("reasoning_content", [ReasoningDelta("Hm")], False),
        ("<think>", [ReasoningDelta("Hm")], False),
        (None, [TextDelta("Hm")], True),
    ],
)
def test_how_a_thinking_model_thinks(reasoning: Any, script: list[Any], inside: bool) -> None:
    nature = Nature(models=("Qwen3-Omni-30B-A3B-Thinking",), reasoning=reasoning, speaks=None)
    with fake_server(nature) as server:
        server.enqueue(*script)
        with connected(server) as backend:
            assert backend.wait_until_ready().reasoning
            assert backend.facts.starts_inside is inside


def test_a_model_of_another_name_that_thinks() -> None:
    with fake_server(Nature(reasoning="reasoning")) as server:
        server.enqueue(ReasoningDelta("Hm"), TextDelta("Yes"))
        with connected(server) as backend:
            assert backend.wait_until_ready().reasoning


@pytest.mark.parametrize("status", [429, 500, 503])
def test_probes_are_not_decisive(status: int) -> None:
    """A server that has a bad moment is still used."""
    with fake_server() as server:
        for _ in range(3):
            server.enqueue(Refusal(status))
        with connected(server) as backend:
            can = backend.wait_until_ready()
    assert can.inputs == {"image", "audio", "video"}


def test_probes_are_cheap() -> None:
    with fake_server() as server, connected(server) as backend:
        backend.wait_until_ready()
        assert len(server.requests) < 10
        assert all(body["max_tokens"] <= 4 for body in server.requests)
        assert sum(len(str(body)) for body in server.requests) < 1_000_000
