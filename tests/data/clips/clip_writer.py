"""Clips written on the spot whose frames tell their number, and files that only look like clips."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

STEP = 8  # levels of grey between frames: more than any codec here blurs
H264 = "libx264" if "libx264" in av.codecs_available else "mpeg4"


def numbered(count: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """``(count, height, width, 3)``, frame i in the grey that says i (modulo 30)."""
    grey = (np.arange(count) % 30 * STEP + 8).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (count, height, width, 3)).copy()


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    """Which frames these are, ``(n, 3, h, w)``."""
    return [round(float((frame.mean() - 8) / STEP)) for frame in frames]


def write(
    path: Path,
    frames: NDArray[np.uint8],
    codec: str = H264,
    pix_fmt: str = "yuv420p",
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
    audio: bool = False,
    container_options: dict[str, str] | None = None,
) -> Path:
    """``frames: (n, h, w, 3)`` as a file; ``times`` in 1/100 s make the rate variable, ``audio`` adds silence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        if len(frames):
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
            stream.codec_context.thread_count = 1
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 100)
        if audio:
            sound = container.add_stream("aac", rate=8000, layout="mono")
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 100)
            container.mux(stream.encode(frame))
        if len(frames):
            container.mux(stream.encode())
        if audio:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path


def damaged_files(folder: Path) -> dict[str, Path]:
    """Files that are no usable clips, by what is wrong with them."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    whole = write(folder / "whole.mp4", numbered(20)).read_bytes()
    film = write(folder / "film.avi", numbered(20), codec="mpeg4").read_bytes()
    streamable = write(folder / "whole.mp4", noise, container_options={"movflags": "faststart"}).read_bytes()
    (folder / "whole.mp4").unlink()
    (folder / "film.avi").unlink()
    content = {
        "empty": b"",
        "zero bytes": bytes(4096),
        "garbage": np.random.default_rng(0).bytes(4096),
        "text": b"this is no clip\n" * 50,
        "cut in half": whole[: len(whole) // 2],
        "cut in half, index first": streamable[: len(streamable) // 2],
        "header alone": whole[:64],
        "no beginning": whole[64:],
        "another kind": film[:32],
    }
    files = {kind: folder / f"{kind.replace(' ', '_')}.mp4" for kind in content}
    for kind, path in files.items():
        path.write_bytes(content[kind])
    files["sound alone"] = write(folder / "sound.mp4", numbered(0), audio=True)
    files["missing"] = folder / "missing.mp4"
    files["a folder"] = folder / "folder.mp4"
    files["a folder"].mkdir()
    files["one frame"] = write(folder / "still.mp4", numbered(1))
    with av.open(str(folder / "none.avi"), "w") as container:  # a container with a stream and no frame in it
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    files["no frames"] = folder / "none.avi"
    return files
