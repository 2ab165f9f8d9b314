"""The one home of every default and limit of the engine side. Each says where it comes from."""

from __future__ import annotations

from typing import Final

from omni_backend.types import MediaType, SamplingName, SamplingParams

# The checkpoint's own recommendations, from the model's cookbooks and generation settings.
INSTRUCT_SAMPLING: Final = SamplingParams(temperature=0.7, top_p=0.8, top_k=20)
THINKING_SAMPLING: Final = SamplingParams(temperature=0.6, top_p=0.95, top_k=20, max_tokens=8192)
CAPTIONER_SAMPLING: Final = SamplingParams(temperature=0.6, top_p=0.95, top_k=20)

SAMPLING_BOUNDS: Final[dict[SamplingName, tuple[float, float]]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.01, 1.0),
    "top_k": (0, 1000),
    "repetition_penalty": (0.5, 2.0),
    "max_tokens": (1, 65_536),
    "seed": (0, 2**31 - 1),
}
"""What the settings may be: OpenAI's range of the temperature, the others wide enough for every use."""
WHOLE_SAMPLING: Final[frozenset[SamplingName]] = frozenset({"top_k", "max_tokens", "seed"})

# The talker's own settings, those of `Qwen3OmniMoeForConditionalGeneration.generate`.
VOICE: Final = "ethan"
TALKER_TEMPERATURE: Final = 0.9
TALKER_TOP_K: Final = 50
TALKER_TOP_P: Final = 1.0
TALKER_REPETITION_PENALTY: Final = 1.05
FRAME_SECONDS: Final = 0.08  # of sound in one codec frame
TALKER_MAX_FRAMES: Final = 4096  # 5 min 27 s

CONTEXT_TOKENS: Final = 32_768  # the length it was trained to; the config's 65,536 positions are room, not skill

# Uploads. Generous for a demo, small enough that one visitor cannot fill the machine.
FILE_BYTES: Final = 256 * 1024**2
IMAGE_PIXELS: Final = 100_000_000  # twice the largest phone camera
AUDIO_SECONDS: Final = 40 * 60.0  # what the model was trained to understand; 31,200 tokens at 13 a second
VIDEO_SECONDS: Final = 10 * 60.0
FILES_PER_MESSAGE: Final[dict[MediaType, int]] = {"image": 16, "audio": 8, "video": 4}

# Reading of media by the model.
AUDIO_WINDOW_SECONDS: Final = 30.0  # the most that the captioner hears well at once, by its model card
SAMPLE_RATE_IN: Final = 16_000  # Hz, of the audio encoder
VIDEO_FPS: Final = 2.0  # frames a second that the model was trained on, qwen-omni-utils' FPS
VIDEO_MAX_FRAMES: Final = 768  # qwen-omni-utils' FPS_MAX_FRAMES
VIDEO_CONTEXT_SHARE: Final = 0.5  # of the context that one film may take

ANSWER_PREFIX_CHARACTERS: Final = 1000  # an opening, not an answer

MAX_WAITING: Final = 32  # requests that wait for their turn; more are told to come back

DECODERS: Final = 2  # requests of one engine that have their media decoded at the same time

# Fetching of http(s) media.
URL_TIMEOUT_SECONDS: Final = 30.0
MEDIA_CACHE_BYTES: Final = 512 * 1024**2  # decoded media kept for later turns
ENCODED_CACHE_BYTES: Final = 256 * 1024**2  # and as the files that a server is sent again with every turn
SINGLE_TURN_CACHE_BYTES: Final = 16 * 1024**2  # of each of the two where nobody asks a second time

# Prompts that the Transformers engine keeps for the next turn of a chat.
PREFIX_CACHES: Final = 4
PREFIX_TOKENS: Final = CONTEXT_TOKENS  # in all; 96 kB each in the published checkpoints, 3.2 GB
FEATURE_CACHE_BYTES: Final = 512 * 1024**2  # spectrograms and patches of the files of those chats

# vLLM. Each can be set by a flag (--help) or by --engine-arg.
GPU_MEMORY_UTILIZATION: Final = 0.95  # the model card's
MAX_NUM_SEQS: Final = 32  # at most; fewer where the KV cache would be short
MAX_NUM_SEQS_CPU: Final = 8
FILES_PER_CONVERSATION: Final = 256  # of each kind; the context is full long before
MM_CACHE_GB: Final = 4.0  # processed media kept for later turns; vLLM's own default
SINGLE_TURN_MM_CACHE_GB: Final = 0.0  # none where nobody asks again: vLLM fails on a file larger than a small cache
ENGINE_SEED: Final = 1234  # the model card's
VLLM_ENVIRONMENT: Final = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would copy the page's threads half-way
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # where the load progress is read
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, read on CPUs only
}

# vLLM-Omni. Of a GPU that its stages share; the thinker takes the rest.
TALKER_ROOM_BYTES: Final = 5 * 512 * 1024**2  # beside its weights; 20 kB of KV cache for each token or frame
TALKER_ROOM_SHARE: Final = 0.03  # of the GPU's memory, where that is more
CODE2WAV_ROOM_BYTES: Final = 3 * 512 * 1024**2  # beside its weights
THINKER_ROOM_BYTES: Final = 2 * 1024**3  # beside its weights and its KV cache, on each GPU
SHARED_BATCHED_TOKENS: Final = 8192  # read at a time by a thinker that shares its GPU; vLLM-Omni's own are 32,768
LEAST_CONTEXT_TOKENS: Final = 4096  # with less there is no conversation about a film
THINKER_WEIGHTS_SHARE: Final = 0.9  # of its GPUs, at most; more leaves no room for conversations
# Of a GPU that talker and code2wav have for themselves: the shares of vLLM-Omni's own deployment.
TALKER_SHARE: Final = 0.6
CODE2WAV_SHARE: Final = 0.1
