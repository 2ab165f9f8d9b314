"""The command line and the environment become settings; nonsense becomes one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from omni_backend import BACKENDS
from omni_backend.command_line import EMBEDDED_CHECKPOINT
from omni_ui.cli import CAPTIONER, Settings, parse

ROOT = Path(__file__).resolve().parent.parent
INSTRUCT = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
THINKING = "Qwen/Qwen3-Omni-30B-A3B-Thinking"
CAPTIONS = "Qwen/Qwen3-Omni-30B-A3B-Captioner"


def settings(*argv: str, **env: str) -> Settings:
    return parse(argv, env=env, has_gpu=lambda: False)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str, **env: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        settings(*argv, **env)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_without_arguments_and_gpu_the_embedded_checkpoint_speaks() -> None:
    chosen = settings()
    assert chosen.options.checkpoint == str(EMBEDDED_CHECKPOINT)
    assert (EMBEDDED_CHECKPOINT / "config.json").exists()
    assert chosen.embedded
    assert chosen.options.generate_audio
    assert (chosen.server_name, chosen.server_port) == ("127.0.0.1", 8901)
    assert (chosen.share, chosen.inbrowser, chosen.options.flash_attn2) == (False, False, False)


def test_with_a_gpu_the_full_model_runs_silent() -> None:
    chosen = parse([], env={}, has_gpu=lambda: True)
    assert chosen.options.checkpoint == INSTRUCT
    assert not chosen.embedded
    assert not chosen.options.generate_audio


def test_a_named_checkpoint_needs_no_look_at_the_hardware() -> None:
    def look() -> bool:
        raise AssertionError("nobody should ask")

    assert parse(["-c", INSTRUCT], env={}, has_gpu=look).options.checkpoint == INSTRUCT


@pytest.mark.parametrize(
    ("line", "checkpoint", "speech", "flash"),
    [
        (f"-c {INSTRUCT}", INSTRUCT, False, False),
        (f"-c {INSTRUCT} --use-transformers --generate-audio", INSTRUCT, True, False),
        (f"-c {INSTRUCT} --use-transformers --generate-audio --flash-attn2", INSTRUCT, True, True),
        (f"-c {THINKING}", THINKING, False, False),
        (f"-c {THINKING} --use-transformers", THINKING, False, False),
        (f"-c {THINKING} --use-transformers --flash-attn2", THINKING, False, True),
    ],
)
def test_the_command_lines_of_the_guide(line: str, checkpoint: str, speech: bool, flash: bool) -> None:
    chosen = settings(*line.split())
    assert (chosen.options.checkpoint, chosen.options.generate_audio, chosen.options.flash_attn2) == (
        checkpoint,
        speech,
        flash,
    )
    if "--use-transformers" in line:
        assert chosen.backend == "transformers"


@pytest.mark.parametrize("flags", ["", "--use-transformers", "--use-transformers --flash-attn2"])
def test_the_captioners_command_lines_of_the_guide(flags: str) -> None:
    chosen = parse(["-c", CAPTIONS, *flags.split()], CAPTIONER, env={}, has_gpu=lambda: False)
    assert chosen.options.checkpoint == CAPTIONS
    assert chosen.options.flash_attn2 == ("--flash-attn2" in flags)
    assert (chosen.server_name, chosen.server_port) == ("127.0.0.1", 8902)


def test_the_captioners_defaults() -> None:
    assert parse([], CAPTIONER, env={}, has_gpu=lambda: True).options.checkpoint == CAPTIONS
    small = parse([], CAPTIONER, env={}, has_gpu=lambda: False)
    assert small.embedded
    assert small.options.checkpoint == str(EMBEDDED_CHECKPOINT)
    assert not small.options.generate_audio
    assert small.options.single_turn
    assert not settings().options.single_turn


def test_the_captioner_takes_the_chats_flags_and_variables_and_never_speaks() -> None:
    flags = ("--generate-audio", "--backend", "transformers", "--share", "--inbrowser", "--server-name", "::1")
    variables = {
        "OMNI_GENERATE_AUDIO": "1",
        "OMNI_BACKEND": "transformers",
        "OMNI_SHARE": "1",
        "OMNI_INBROWSER": "1",
        "OMNI_SERVER_NAME": "::1",
    }
    chosen = parse(flags, CAPTIONER, env={}, has_gpu=lambda: False)
    assert chosen == parse([], CAPTIONER, env=variables, has_gpu=lambda: False)
    assert not chosen.options.generate_audio
    assert (chosen.share, chosen.inbrowser, chosen.server_name) == (True, True, "::1")


def test_where_jobs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def jobs(*argv: str, **env: str) -> Path | None:
        return parse(argv, CAPTIONER, env=env, has_gpu=lambda: False).jobs_dir

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("omni_ui.cli.SPACES_DATA", tmp_path / "absent")
    kept = tmp_path / ".local" / "share" / "qwen3-omni-captions"
    assert jobs() == jobs(SPACE_ID="someone/captions") == kept
    assert jobs(XDG_DATA_HOME=str(tmp_path / "data")) == tmp_path / "data" / "qwen3-omni-captions"
    assert jobs("--jobs-dir", "~/here", OMNI_JOBS_DIR="/there") == tmp_path / "here"
    assert jobs(OMNI_JOBS_DIR="/there") == Path("/there")

    monkeypatch.setattr("omni_ui.cli.SPACES_DATA", tmp_path)
    assert jobs(SPACE_ID="someone/captions") == tmp_path / "qwen3-omni-captions"
    assert jobs() == kept


def test_the_chat_keeps_no_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings(OMNI_JOBS_DIR="/there").jobs_dir is None
    assert "--jobs-dir" in refusal(capsys, "--jobs-dir", "there")


def test_every_flag_has_its_variable() -> None:
    by_flag = settings(
        *("--checkpoint-path", "there", "--backend", "transformers", "--generate-audio", "--flash-attn2"),
        *("--share", "--inbrowser", "--server-port", "9000", "--server-name", "0.0.0.0"),
    )
    by_variable = settings(
        OMNI_CHECKPOINT_PATH="there",
        OMNI_BACKEND="transformers",
        OMNI_GENERATE_AUDIO="1",
        OMNI_FLASH_ATTN2="true",
        OMNI_SHARE="yes",
        OMNI_INBROWSER="on",
        OMNI_SERVER_PORT="9000",
        OMNI_SERVER_NAME="0.0.0.0",
    )
    assert by_flag == by_variable
    assert by_flag.share
    assert by_flag.inbrowser
    assert by_flag.server_port == 9000
    assert settings(OMNI_USE_TRANSFORMERS="1").backend == "transformers"


def test_the_command_line_wins() -> None:
    env = {"OMNI_GENERATE_AUDIO": "1", "OMNI_SERVER_PORT": "1", "OMNI_CHECKPOINT_PATH": "there", "OMNI_SHARE": "1"}
    chosen = settings("--no-generate-audio", "--server-port", "2", "-c", "here", "--no-share", **env)
    assert (chosen.options.generate_audio, chosen.server_port, chosen.options.checkpoint, chosen.share) == (
        False,
        2,
        "here",
        False,
    )


def test_gradios_own_variables_count_after_ours() -> None:
    gradio = {"GRADIO_SERVER_PORT": "7000", "GRADIO_SERVER_NAME": "::1"}
    chosen = settings(**gradio)
    assert (chosen.server_port, chosen.server_name) == (7000, "::1")
    assert settings(OMNI_SERVER_PORT="7001", **gradio).server_port == 7001


def test_on_spaces_the_page_is_open_to_all() -> None:
    chosen = settings(SPACE_ID="someone/demo")
    assert (chosen.server_name, chosen.server_port) == ("0.0.0.0", 7860)


def test_empty_variables_count_as_not_set() -> None:
    assert settings(OMNI_CHECKPOINT_PATH="", OMNI_GENERATE_AUDIO=" ", OMNI_SERVER_PORT="") == settings()


def test_the_embedded_folder_is_known_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EMBEDDED_CHECKPOINT.parent)
    chosen = settings("-c", f"./{EMBEDDED_CHECKPOINT.name}")
    assert chosen.embedded
    assert chosen.options.generate_audio


@pytest.mark.parametrize("port", ["0", "65536", "-1", "web", "80.5"])
def test_a_bad_port(capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert port in refusal(capsys, f"--server-port={port}")


def test_an_unknown_engine_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "--backend", "abacus")
    assert "abacus" in message
    assert all(name in message for name in BACKENDS)


def test_two_engines_at_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "other", BACKENDS["transformers"])
    assert "other" in refusal(capsys, "--backend", "other", "--use-transformers")
    assert settings("--backend", "other", OMNI_USE_TRANSFORMERS="1").backend == "other"


def test_auto_takes_an_engine_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    spec = BACKENDS["transformers"]
    monkeypatch.delitem(BACKENDS, "transformers")
    monkeypatch.setitem(BACKENDS, "absent", replace(spec, requires=("no_such_module_anywhere",)))
    monkeypatch.setitem(BACKENDS, "transformers", spec)
    assert settings().backend == "transformers"
    assert settings("--backend", "auto").backend == "transformers"


def test_auto_takes_vllm_only_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omni_backend.command_line.find_spec", lambda module: module)
    assert settings().backend == "transformers"
    assert parse([], env={}, has_gpu=lambda: True).backend == "vllm"
    assert parse(["--use-transformers"], env={}, has_gpu=lambda: True).backend == "transformers"


def test_options_of_vllm_by_flag_and_variable() -> None:
    by_flag = settings(
        *("--backend", "vllm", "-c", "there", "--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.8"),
        *("--max-model-len", "4096", "--max-num-seqs", "4", "--quantization", "fp8"),
        *("--engine-arg", "enforce_eager=true", "--engine-arg", "kv-cache-dtype=fp8"),
    )
    by_variable = settings(
        OMNI_BACKEND="vllm",
        OMNI_CHECKPOINT_PATH="there",
        OMNI_TENSOR_PARALLEL_SIZE="2",
        OMNI_GPU_MEMORY_UTILIZATION="0.8",
        OMNI_MAX_MODEL_LEN="4096",
        OMNI_MAX_NUM_SEQS="4",
        OMNI_QUANTIZATION="fp8",
        OMNI_ENGINE_ARGS="enforce_eager=true kv_cache_dtype=fp8",
    )
    assert by_flag == by_variable
    options = by_flag.options
    assert (options.tensor_parallel_size, options.gpu_memory_utilization) == (2, 0.8)
    assert (options.max_model_len, options.max_num_seqs, options.quantization) == (4096, 4, "fp8")
    assert options.engine_args == (("enforce_eager", "true"), ("kv_cache_dtype", "fp8"))


def test_a_server_is_taken_when_its_address_is_given() -> None:
    chosen = settings("--server-url", "http://127.0.0.1:8000/v1", OMNI_API_KEY="secret", OMNI_MODEL="omni")
    assert chosen.backend == "server"
    assert chosen.options.checkpoint == ""
    assert (chosen.options.server_url, chosen.options.model) == ("http://127.0.0.1:8000/v1", "omni")
    assert chosen.options.api_key == "secret"
    assert "secret" not in repr(chosen)
    assert not chosen.embedded
    assert settings(OMNI_SERVER_URL="http://127.0.0.1:8000/v1").backend == "server"
    assert settings("--backend", "transformers", OMNI_SERVER_URL="http://127.0.0.1:8000/v1").backend == "transformers"


def test_a_server_needs_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--server-url" in refusal(capsys, "--backend", "server")


@pytest.mark.parametrize(
    "flag",
    ["--max-model-len=9", "--quantization=fp8", "--engine-arg=a=b", "--api-key=k", "--flash-attn2"],
)
def test_options_of_another_engine_are_refused(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    engine = "vllm" if flag in ("--flash-attn2", "--api-key=k") else "transformers"
    message = refusal(capsys, "--backend", engine, flag)
    assert flag.split("=")[0] in message
    assert engine in message


def test_variables_of_another_engine_do_not_matter() -> None:
    assert settings(OMNI_MAX_MODEL_LEN="4096", OMNI_API_KEY="k") == settings()


@pytest.mark.parametrize(
    "flag",
    [
        *("--tensor-parallel-size=0", "--tensor-parallel-size=two", "--max-num-seqs=-1", "--max-model-len=1.5"),
        *("--gpu-memory-utilization=0", "--gpu-memory-utilization=90", "--gpu-memory-utilization=all"),
        *("--engine-arg=enforce_eager", "--engine-arg==1", "--engine-arg=a b=1"),
    ],
)
def test_a_bad_value_for_vllm(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    name, _, value = flag.partition("=")
    message = refusal(capsys, "--backend", "vllm", flag)
    assert name in message
    assert value in message


def test_a_flag_variable_that_is_neither_yes_nor_no(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, OMNI_SHARE="perhaps")
    assert "OMNI_SHARE" in message
    assert "perhaps" in message


def test_an_unknown_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--colour" in refusal(capsys, "--colour")


def test_refusals_follow_the_terminals_language(capsys: pytest.CaptureFixture[str]) -> None:
    assert "端口" in refusal(capsys, "--server-port=web", LANG="zh_CN.UTF-8")


@pytest.mark.parametrize("language", ["en_GB.UTF-8", "zh_CN.UTF-8"])
@pytest.mark.parametrize(
    ("program", "example"),
    [
        ("app", "python app.py -c Qwen/Qwen3-Omni-30B-A3B-Instruct --use-transformers --generate-audio"),
        ("app_captioner", "python app_captioner.py -c Qwen/Qwen3-Omni-30B-A3B-Captioner --use-transformers"),
    ],
)
def test_help_comes_in_groups_with_examples_and_without_an_engine(program: str, example: str, language: str) -> None:
    script = (
        f"import sys, {program}\ntry:\n {program}.main(['--help'])\nexcept SystemExit as end:\n assert not end.code\n"
    )
    check = "assert not {'torch', 'transformers', 'gradio'} & set(sys.modules), 'too much was imported'"
    done = subprocess.run(
        [sys.executable, "-c", script + check],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"LC_ALL": language, "PYTHONIOENCODING": "utf-8", "PATH": ""},
        check=True,
    )
    from omni_backend import phrase

    zh = language.startswith("zh")
    for key in ("cli.group_model", "cli.group_engine", "cli.group_server"):
        assert phrase(key).text("zh" if zh else "en") in done.stdout
    assert example in done.stdout
    for variable in ("OMNI_CHECKPOINT_PATH", "OMNI_MODEL", "GRADIO_SERVER_PORT"):
        assert variable in done.stdout
    assert ("OMNI_JOBS_DIR" in done.stdout) == (program == "app_captioner")
