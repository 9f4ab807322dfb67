"""Reading one clip: exact decoded windows, the next one decoded while this one is used.

In: a Clip. Out: Window records whose frames, indices and times are those of the manifest, or InputError.
Called by the operators. Knows nothing of models, Ray or artifacts.

Memory: at most two windows (the one in use, the one ready or being filled) and the decoder's own few frames,
so 2 × window_frames × height × width × 3 bytes: 332 MB for 60 frames of 720p, at any length of clip.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

import numpy as np

from data_jobs.egoworld.decode import Decoder, PacketTime, TimedFrame
from data_jobs.egoworld.pixels import RgbConverter
from data_jobs.egoworld.records import Clip, Window
from data_jobs.runs.errors import InputError


class ClipReader:
    """Decodes one clip. Cheap to build: files are opened by the iterators and closed when those end or are
    dropped."""

    def __init__(self, clip: Clip, window_frames: int, decode_threads: int = 1) -> None:
        """Remember what to read.

        Args:
            clip: a row of the manifest.
            window_frames: frames per window; the last window of the clip may be shorter.
            decode_threads: threads inside FFmpeg, beside the one thread that reads ahead.
        """
        if window_frames < 1:
            raise ValueError(f"window_frames is {window_frames}, expected 1 or more")
        self.clip = clip
        self.window_frames = window_frames
        self._decode_threads = decode_threads

    def windows(self) -> Generator[Window]:
        """All frames of the clip in order, each exactly once, `window_frames` at a time.

        Raises:
            InputError: the file cannot be opened, a picture is damaged, or the frames are not those of the
                manifest.
            TransientError: the storage failed.
        """
        stop = threading.Event()
        source = self._windows_in_turn(stop)
        with ThreadPoolExecutor(1, thread_name_prefix="decode-ahead") as pool:
            ahead = pool.submit(next, source, None)
            try:
                while (window := ahead.result()) is not None:
                    ahead = pool.submit(next, source, None)
                    yield window
                    del window  # else it would live on beside the next two
            finally:
                stop.set()
                pool.submit(source.close).result()  # after what the thread is at: closes the file there

    def frames_at(self, indices: Iterable[int]) -> Generator[Window]:
        """Chosen frames in ascending order, one per Window; indices count over the whole video, as in Window.

        Decodes only what the chosen frames need: from the last keyframe before each. The pixels equal those
        of `windows`. Raises ValueError for an index outside the clip, else as `windows`.
        """
        wanted = sorted(set(indices))
        first, end = self.clip.frame_start, self.clip.frame_end
        if wanted and not (first <= wanted[0] and wanted[-1] < end):
            raise ValueError(f"frames {wanted[0]}..{wanted[-1]} reach outside {first}..{end - 1}")
        if not wanted:
            return
        with self._decoder() as decoder:
            packets = self._packets(decoder)
            if packets is not None:
                yield from self._sought(decoder, packets, wanted)
                return
        chosen = set(wanted)  # times are only known by decoding: count through the whole clip
        for window in ClipReader(self.clip, 1, self._decode_threads).windows():
            if int(window.frame_index[0]) in chosen:
                yield window

    def times_s(self) -> np.ndarray:
        """Presentation time of every frame of the clip in seconds, (frames,) float64, without making pictures.

        Raises as `windows`; where the container tells the times, packets are read but not decoded.
        """
        with self._decoder() as decoder:
            packets = self._packets(decoder)
            if packets is not None:
                return self._seconds(np.array([packet.pts for packet in packets], np.int64))
            times = [pts for pts, _ in takewhile(self._is_inside, decoder.frames_from(self.clip.start_pts))]
        if len(times) != self.clip.frame_count or times[-1] != self.clip.end_pts:
            raise self._miscounted(times)
        return self._seconds(np.array(times, np.int64))

    def _sought(self, decoder: Decoder, packets: list[PacketTime], wanted: list[int]) -> Iterator[Window]:
        """Go through the wanted frames; seek only to the first one and where a keyframe lies in between."""
        convert = RgbConverter(self.clip.rotation_deg)
        frames: Iterator[TimedFrame] = iter(())
        position = -1  # place in the clip of the next frame that `frames` gives; -1 before the first seek
        for index in wanted:
            place = index - self.clip.frame_start
            pts = packets[place].pts
            if position < 0 or any(packet.is_keyframe for packet in packets[position + 1 : place + 1]):
                frames = decoder.frames_from(pts)
            found = next((timed for timed in frames if timed[0] >= pts), None)
            if found is None or found[0] != pts:
                raise InputError(f"{self.clip.name}: frame {index} (pts {pts}) cannot be decoded")
            images = self._empty_images(1)
            self._convert(convert, found, images[0])
            yield self._window(images, [pts], index)
            position = place + 1

    def _windows_in_turn(self, stop: threading.Event) -> Generator[Window]:
        """The work of the thread: decode, convert, pack, and keep account of what came against what is due."""
        clip, convert = self.clip, RgbConverter(self.clip.rotation_deg)
        seen: list[int] = []
        with self._decoder() as decoder:
            inside = takewhile(self._is_inside, decoder.frames_from(clip.start_pts))
            while len(seen) < clip.frame_count:
                start = len(seen)
                images = self._empty_images(min(self.window_frames, clip.frame_count - start))
                for image, timed in zip(images, inside, strict=False):
                    if stop.is_set():
                        return
                    self._convert(convert, timed, image)
                    seen.append(timed[0])
                complete = len(seen) == start + len(images)
                if not complete or (len(seen) == clip.frame_count and seen[-1] != clip.end_pts):
                    raise self._miscounted(seen)
                yield self._window(images, seen[start:], clip.frame_start + start)

    def _is_inside(self, timed: TimedFrame) -> bool:
        return timed[0] <= self.clip.end_pts

    def _decoder(self) -> Decoder:
        return Decoder(self.clip.path, self.clip.name, self._decode_threads)

    def _packets(self, decoder: Decoder) -> list[PacketTime] | None:
        """One per frame of the clip, in display order; None where the container does not tell (AVI, MPEG streams)."""
        return decoder.packets_between(self.clip.start_pts, self.clip.end_pts, self.clip.frame_count)

    def _empty_images(self, count: int) -> np.ndarray:
        return np.empty((count, self.clip.height, self.clip.width, 3), np.uint8)

    def _convert(self, convert: RgbConverter, timed: TimedFrame, out: np.ndarray) -> None:
        pts, frame = timed
        if not convert.into(frame, out):
            raise InputError(
                f"{self.clip.name}: the picture at pts {pts} is stored as {frame.width}x{frame.height}, but the "
                f"video is shown as {self.clip.width}x{self.clip.height}; one size per video can be read"
            )

    def _window(self, images: np.ndarray, times: list[int], first_index: int) -> Window:
        pts = np.array(times, np.int64)
        index = np.arange(first_index, first_index + len(times))
        images.flags.writeable = False  # a record copies what could still be written to; here that is megabytes
        return Window(images=images, pts=pts, frame_index=index, timestamp_s=self._seconds(pts))

    def _seconds(self, pts: np.ndarray) -> np.ndarray:
        return pts * self.clip.time_base.numerator / self.clip.time_base.denominator

    def _miscounted(self, seen: list[int]) -> InputError:
        """What was due, what came, and the first time at which nothing came, as far as the container tells."""
        clip, known = self.clip, set(seen)
        with self._decoder() as decoder:
            packets = self._packets(decoder) or []
        missing = next((packet.pts for packet in packets if packet.pts not in known), None)
        where = f"the last one at pts {seen[-1]}" if seen else "none at all"
        where = f"first missing pts {missing}" if missing is not None else where
        return InputError(
            f"{clip.name}: expected {clip.frame_count} frames up to pts {clip.end_pts}, decoded {len(seen)}; {where}"
        )
