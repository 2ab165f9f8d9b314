"""Sounds and films through PyAV: what their containers say, and one pass that decodes pictures and sound.

FFmpeg gets an open file and a short list of formats, never a name or an address: a playlist that calls itself
.mp4 opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from omni_backend.media_source import Source
from omni_backend.media_values import MediaInfo, bad_media

if TYPE_CHECKING:
    from av import AudioFrame, VideoFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Demuxers that read nothing but the file itself; hls, dash and concat are not among them.
_FORMATS: Final = "mov,matroska,avi,mpegts,ogg,flac,mp3,aac,wav,aiff,gif"
# Beginnings that say what a file means to be, to tell a broken file from an unknown one.
_MAGIC: Final = (
    b"\x1aE\xdf\xa3",
    b"RIFF",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"FORM",
    b"GIF8",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"BM",
)
_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")
_WAV: Final = {"probesize": "65536", "max_size": "65536"}
"""For WAV files, in bytes: how far DTS in disguise is searched for, where FFmpeg's own 5 MB take longer than to decode
the file; and how much is read at a time, where FFmpeg's own few milliseconds make many small frames."""


@dataclass(frozen=True, slots=True)
class Span:
    """When a file's first stream starts and its last one ends, in seconds of its own clock."""

    start: float
    end: float


def look_at_container(source: Source, *, doubt_above: float, max_pixels: int) -> MediaInfo:
    """What a container holds. Reads through it without decoding where its header tells no duration, or one
    above `doubt_above` seconds.

    Raises BadMedia: unknown, broken, nothing in it to see or hear, pictures of more than `max_pixels` pixels.
    """
    with opened(source) as container:
        video, audio = streams(container, source, max_pixels)
        decoding = Decoding(container, video or audio)
        first = next(iter(decoding), None)
        if first is None:
            raise bad_media("no_sound" if video is None and not decoding.damaged else "broken", source.name)
        duration = container.duration / 1_000_000 if container.duration else None  # AV_TIME_BASE: microseconds
    if duration is None or duration > doubt_above:
        span = measure(source, max_pixels)
        duration = span.end - span.start
    if video is None:
        return MediaInfo("audio", duration, True, None)
    from av import VideoFrame

    from omni_backend.media_frames import upright_size

    assert isinstance(first, VideoFrame)
    return MediaInfo("video", duration, audio is not None, upright_size(first))


def measure(source: Source, max_pixels: int) -> Span:
    """When the packets of the file start and end, whatever its header claims. Raises BadMedia."""
    from av import FFmpegError

    spans: dict[int, tuple[float, float, int]] = {}
    lasting: dict[int, float] = {}
    with opened(source) as container:
        used = [stream for stream in streams(container, source, max_pixels) if stream is not None]
        try:
            for packet in container.demux(used):
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is None or packet.size == 0:
                    continue
                time = float(stamp * packet.time_base)
                low, high, count = spans.get(packet.stream_index, (time, time, 0))
                if time >= high:
                    lasting[packet.stream_index] = float((packet.duration or 0) * packet.time_base)
                spans[packet.stream_index] = min(low, time), max(high, time), count + 1
        except FFmpegError:
            pass  # cut off: what came before counts
        starts, ends = [], []
        for stream in used:
            if stream.index not in spans:
                continue
            low, high, count = spans[stream.index]
            if stream.start_time is not None and stream.time_base is not None:
                low = float(stream.start_time * stream.time_base)  # without the encoder's run-in
            starts.append(low)
            # A recorder that streams gives its last picture no duration: the mean of the others stands in.
            ends.append(high + (lasting[stream.index] or (high - low) / max(1, count - 1)))
    if not starts:
        raise bad_media("broken", source.name)
    return Span(min(starts), max(ends))


@contextmanager
def opened(source: Source) -> Iterator[InputContainer]:
    """The container of `source`, open for reading. Raises BadMedia: unknown, broken."""
    import av

    with source.open() as file:
        head = file.read(12)
        file.seek(0)
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": ""}
        if head.startswith(b"RIFF") and head.endswith(b"WAVE"):
            options |= _WAV
        try:
            container = av.open(
                file,
                "r",
                container_options=options,
                metadata_errors="ignore",
                buffer_size=256 * 1024,
            )
        except (av.FFmpegError, ValueError, OSError) as error:
            known = head.startswith(_MAGIC) or head[4:8] in _BOXES
            raise bad_media("broken" if known else "unknown", source.name, detail=repr(error)) from error
        with container:
            yield container


def streams(
    container: InputContainer, source: Source, max_pixels: int
) -> tuple[VideoStream | None, AudioStream | None]:
    """The picture and the sound track to use; cover art is no picture.

    Raises BadMedia: nothing to see or hear, coded in an unknown way, more than `max_pixels` pixels.
    """
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    films = [stream for stream in container.streams.video if not stream.disposition & still]
    sounds = list(container.streams.audio)
    video = next((stream for stream in films if stream.codec_context is not None), None)
    audio = next((stream for stream in sounds if stream.codec_context is not None), None)
    if video is None and audio is None:
        raise bad_media("codec" if films or sounds else "no_stream", source.name)
    if video is not None and video.width * video.height > max_pixels:
        raise bad_media("too_big_image", source.name, width=video.width, height=video.height, limit=max_pixels)
    return video, audio


def first_time(*used: VideoStream | AudioStream) -> float | None:
    """When the first of some streams begins, by the file's header, in seconds on its clock; None: it does not say."""
    times = [float(s.start_time * s.time_base) for s in used if s.start_time is not None and s.time_base is not None]
    return min(times, default=None)


class Decoding:
    """The frames of some streams, in the order of the file, for one iteration.

    Damaged packets are passed over and a cut-off file ends early; `damaged` says whether that happened.
    """

    def __init__(self, container: InputContainer, *used: VideoStream | AudioStream | None) -> None:
        self.damaged = False
        self._container = container
        self._streams = [stream for stream in used if stream is not None]

    def __iter__(self) -> Iterator[VideoFrame | AudioFrame]:
        from av import FFmpegError

        packets = self._container.demux(self._streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except FFmpegError:
                self.damaged = True
                break
            yield from self._tried(packet.decode)
        for stream in self._streams:  # a file that ends well flushes the decoders itself
            yield from self._tried(partial(stream.decode, None))

    def _tried(self, decode: Callable[[], list[Any]]) -> list[VideoFrame | AudioFrame]:
        from av import FFmpegError

        try:
            return decode()
        except FFmpegError:
            self.damaged = True
            return []
