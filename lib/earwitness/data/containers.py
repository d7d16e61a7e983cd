"""What a file is, by its bytes; which decoder reads it; and whether all of its sound is there.

A header may lie about the length of what follows it, so none is believed. The structure of a file (the chunks of a WAV,
the pages of an Ogg, the frames of an MP3 or a FLAC) is walked first, without decoding: it says how much sound lies
there, and libsndfile decodes whatever it would read as far as that. Everything else goes through PyAV (FFmpeg's
libraries), which reads to the end. Where header and sound disagree, the sound is used whole and a remark says so, or
the file is left out with both figures.

FFmpeg guesses formats from content, and some of them (playlists, ``concat`` lists, references inside MP4) make it
open further files or addresses. Here it gets an open file instead of a name, the one demuxer that the first bytes ask
for, an empty list of protocols, and a list of decoders that the one which was chosen is compared with.

Sources: RFC 9639 (FLAC), RFC 3533 (Ogg), RFC 7845 (Opus), the specifications of RIFF and AIFF, the LAME tag.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile as sf

from earwitness.errors import AudioError
from earwitness.types import FileInfo
from earwitness.util import counted

MAX_BYTES = 32 << 30
MAX_SECONDS = 4 * 3600.0
MAX_CHANNELS = 16
MAX_SAMPLE_RATE = 384_000
AGAIN = "export it again as WAV or FLAC"
CUT = "the file is cut short; export it again"

# --- what the first bytes say -----------------------------------------------------------------------------------------

PCM = (*(f"pcm_{kind}" for kind in ("u8", "s8", "mulaw", "alaw")),
       *(f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")))  # fmt: skip
SUFFIXES_OF = {
    "WAV": (".wav", ".wave"),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
    "M4A": (".m4a", ".m4b", ".mp4"),
    "AAC": (".aac",),
}
SUFFIXES = {suffix for names in SUFFIXES_OF.values() for suffix in names}
BY_AV = {"M4A", "AAC"}  # whatever is in them
DEMUXERS = {  # container: FFmpeg's demuxer, and the decoders that may be opened
    "WAV": ("wav", (*PCM, "adpcm_ms", "adpcm_ima_wav")),
    "AIFF": ("aiff", PCM),
    "FLAC": ("flac", ("flac",)),
    "OGG": ("ogg", ("vorbis", "opus", "flac")),
    "MP3": ("mp3", ("mp3float", "mp3", "mp2", "mp2float", "mp1", "mp1float")),
    "M4A": ("mov", ("aac", "alac", "mp3float", "mp3", "flac", "opus")),
    "AAC": ("aac", ("aac",)),
}
PROTECTED = {"drms", "enca", "drmi", "encv"}
MAGIC: tuple[tuple[int, bytes, str], ...] = (  # offset, bytes, what begins so; what has no article is said in brackets
    (0, b"\x89PNG", "PNG image"), (0, b"\xff\xd8\xff", "JPEG image"), (0, b"GIF8", "GIF image"),
    (8, b"WEBP", "WebP image"), (0, b"II*\0", "TIFF image"), (0, b"MM\0*", "TIFF image"), (0, b"BM", "BMP image"),
    (0, b"%PDF", "PDF document"), (0, b"PK\x03\x04", "ZIP archive"), (0, b"\x1f\x8b", "gzip archive"),
    (0, b"Rar!", "RAR archive"), (0, b"7z\xbc\xaf", "7z archive"), (257, b"ustar", "tar archive"),
    (0, b"bplist", "property list"), (0, b"\0\x05\x16\x07", "Finder's sidecar"),
    (0, b"version https://git-lfs", "pointer of Git LFS; fetch the file itself"),
    (0, b"#EXTM3U", "playlist"), (0, b"ffconcat", "playlist"), (0, b"[playlist]", "playlist"),
    (8, b"RMID", "MIDI file in a RIFF wrapper"), (0, b"MThd", "MIDI file"),
    (8, b"AVI ", "AVI video"), (0, b"\x1aE\xdf\xa3", "Matroska or WebM file"), (0, b"FLV\x01", "Flash video"),
    (0, b"\0\0\x01\xba", "MPEG video"), (0, b"\0\0\x01\xb3", "MPEG video"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "WMA or WMV file"), (0, b"wvpk", "WavPack file"), (0, b"MAC ", "Monkey's Audio file"),
    (0, b"DSD ", "DSD file"), (0, b"FRM8", "DSD file"), (0, b"caff", "CAF file"), (0, b".snd", "AU file"),
    (0, b"riff\x2e\x91\xcf\x11", "W64 file"), (0, b"#!AMR", "AMR file"), (0, b"TTA1", "TTA file"),
    (0, b"MPCK", "Musepack file"), (0, b"MP+", "Musepack file"), (0, b".RMF", "RealMedia file"),
    (0, b".ra\xfd", "RealAudio file"), (0, b"\x0bw", "AC-3 stream"), (0, b"\x7f\xfe\x80\x01", "DTS stream"),
    (0, b"\xfe\x7f\x01\x80", "DTS stream"), (0, b"OTTO", "font"), (0, b"SQLite format 3", "database"),
)  # fmt: skip
MENDS = {
    "MIDI file": "rename it to .mid",
    "MIDI file in a RIFF wrapper": "export it as a MIDI file (.mid)",
    "property list": "fetch the recording itself",
    "playlist": "give the recordings it names",
}
HEAD = 1 << 16  # bytes that are looked at


@dataclass(frozen=True)
class Structure:
    """What a walk over a file says: who decodes it, how much sound there is, and what is odd about it.

    Attributes
    ----------
    container : str
        A key of ``DEMUXERS``.
    by_av : bool
        PyAV decodes it, for libsndfile would not read to its end.
    frames, length, promised : int
        Samples of one channel: those that lie in the file at least, about how many they are, and those that its header
        promises; 0: nobody says, or for ``length`` that the decoder does.
    codec : str
        In libsndfile's words, where PyAV does not say it.
    remark : str
        What a user should know; empty for a file like any other.
    """

    container: str
    by_av: bool = False
    frames: int = 0
    length: int = 0
    promised: int = 0
    remark: str = ""
    codec: str = ""


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file of at most ``MAX_BYTES``; pipes and devices are not waited for.

    Raises
    ------
    AudioError
        No such file, no regular one, one that is too large or cannot be opened.
    """
    try:
        kind = "" if path.is_file() else "a folder" if path.is_dir() else "no regular file"
        kind = kind if path.exists() else "no such file"
        if not kind:  # a device must not even be opened
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
            held = os.fstat(file.fileno())
            if stat.S_ISREG(held.st_mode) and held.st_size <= MAX_BYTES:
                return file
            file.close()
            kind = "no regular file" if held.st_size <= MAX_BYTES else ""
    except (OSError, ValueError) as error:
        why = str(getattr(error, "strerror", None) or error).lower()
        raise AudioError(f"{path.name}: cannot be read ({why}); check its path and permissions") from None
    if kind:
        raise AudioError(f"{path.name}: expected an audio file, found {kind}; check the path")
    size = f"{held.st_size / 2**30:.0f} GiB, and at most {MAX_BYTES >> 30} GiB are read"
    raise AudioError(f"{path.name}: {size}; split it into works first")


State = tuple[int, int, int, int, int]


def state_of(path: Path) -> State:
    """Return what changes when a file does: device, number, size, times of its last change."""
    now = path.stat()
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a recording's bytes; they are read once, as long as the file stays as it is.

    Raises
    ------
    AudioError
        As ``open_regular``; a file that is being written.
    """
    open_regular(path).close()
    try:
        return _content_hash(path.absolute(), state_of(path))
    except OSError as error:
        why = str(error.strerror or error).lower()
        raise AudioError(f"{path.name}: cannot be read ({why}); check its path and permissions") from None


@lru_cache(maxsize=1 << 20)
def _content_hash(path: Path, state: State) -> str:
    found, left = sha256(), state[2]
    with open_regular(path) as file:
        while left and (piece := file.read(min(left, 1 << 20))):
            found.update(piece)
            left -= len(piece)
    if left or state_of(path) != state:
        raise AudioError(f"{path.name}: it changes while it is read; wait until it is written, and run again")
    return found.hexdigest()


def _look(path: Path) -> tuple[str, bytes]:
    """Return what a file is by its first bytes, a key of ``DEMUXERS`` or nothing, and these."""
    with open_regular(path) as file:
        start = _after_id3(file)
        file.seek(start)
        head = file.read(HEAD)
    return _container(head, search=start > 0 or path.suffix.lower() == ".mp3"), head


def container_of(path: Path) -> str:
    """Return what a file is by its first bytes: a key of ``DEMUXERS``.

    Raises
    ------
    AudioError
        Anything else, by its name.
    """
    found, head = _look(path)
    if not found:
        raise AudioError(f"{path.name}: {_other(head, path.suffix.lower())}")
    return found


def refuse_no_score(path: Path) -> None:
    """Refuse what is known to be something else than a MIDI file; what is not known is left to its reader."""
    found, head = _look(path)
    suffix = path.suffix.lower()
    if found:
        raise AudioError(f"{path.name}: this is {_article(found)} named {suffix}; rename it")
    midi = head[:4] == b"MThd" or head[8:12] == b"RMID"
    if not midi and any(head[at : at + len(magic)] == magic for at, magic, _ in MAGIC):
        raise AudioError(f"{path.name}: {_other(head, suffix)}")


def _container(head: bytes, *, search: bool) -> str:
    if head[:4] in {b"RIFF", b"RF64", b"RIFX", b"BW64"} and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        return "AIFF"
    if head[:4] in {b"fLaC", b"OggS"}:
        return {b"f": "FLAC", b"O": "OGG"}[head[:1]]
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide"}:
        return "M4A"
    at = len(head) - len(head.lstrip(b"\0"))
    while 0 <= at < len(head):
        if kind := _mpeg(head, at):
            return kind
        at = head.find(b"\xff", at + 1) if search else -1
    return ""


def _mpeg(head: bytes, at: int) -> str:
    """Say whether MPEG audio, or AAC in ADTS, begins here: three frames, each where the one before it ends."""
    kinds: set[str] = set()
    for _ in range(3):
        if at >= len(head) and kinds:
            break
        size, kind = _frame_size(head[at : at + 6])
        kinds.add(kind)
        at += size
    return kinds.pop() if len(kinds) == 1 else ""


KBITS = {  # by version 1 or 2, and layer
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
KBITS[2, 3] = KBITS[2, 2]


def _frame_size(head: bytes) -> tuple[int, str]:
    """Return the bytes of the MPEG frame that begins with these, and its container; 0 where none can."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0, ""
    layer = 4 - (head[1] >> 1 & 3)
    if layer == 4:
        return ((head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5, "AAC") if head[1] & 0xF6 == 0xF0 else (0, "")
    version, code, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    if version == 1 or code in {0, 15} or rate == 3:
        return 0, ""
    hertz = (44_100, 48_000, 32_000)[rate] >> (version != 3) >> (version == 0)
    bits = 1000 * KBITS[1 if version == 3 else 2, layer][code]
    if layer == 1:
        return (12 * bits // hertz + (head[2] >> 1 & 1)) * 4, "MP3"
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + (head[2] >> 1 & 1), "MP3"


def _after_id3(file: IO[bytes]) -> int:
    """Return where what follows the ID3v2 tags begins."""
    at = 0
    for _ in range(16):
        file.seek(at)
        tag = file.read(10)
        if tag[:3] != b"ID3" or max(tag[6:10], default=255) > 127:
            return at
        at += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]) + 10 * (tag[5] >> 4 & 1)
    return at


def _other(head: bytes, suffix: str) -> str:
    """Say what a file is that is no recording of a kind that is read."""
    kind = next((name for at, magic, name in MAGIC if head[at : at + len(magic)] == magic), "")
    if not head:
        kind = "the file is empty"
    elif not head.strip(b"\0"):
        kind = "it begins with zeros; was it copied to the end?"
    elif head.lstrip()[:1] == b"<" and (b"<html" in head.lower() or b"<!doctype html" in head.lower()):
        kind = "web page"
    elif not kind and all(32 <= byte < 127 or byte >= 160 or byte in b"\t\r\n\f" for byte in head[:512]):
        kind = "text"
    if kind.startswith("MIDI file"):
        return f"this is a {kind} named {suffix}; {MENDS[kind]}"
    if kind.endswith((" file", " stream", " video")):
        return f"this is {_article(kind)} named {suffix}, and such files are not read; {AGAIN}"
    named = kind if kind.startswith(("the ", "it ", "text")) or not kind else _article(kind)
    what = f"({named})" if kind else "(nothing in it is known)"
    return f"not readable as audio {what}; {MENDS.get(kind, AGAIN)}"


def _article(name: str) -> str:
    return f"an {name}" if name[:2] in {"M4", "MP", "AA", "AI", "OG", "AC", "AV", "AM", "AU"} else f"a {name}"


# --- how much sound there is ------------------------------------------------------------------------------------------

WAV_CODECS = {1, 2, 3, 6, 7, 0x11}
PLAIN = {1, 3, 6, 7}  # of them, those with so many bytes a sample
WAV_NAMES = {
    0x22: "TrueSpeech", 0x31: "GSM 6.10", 0x40: "G.721", 0x45: "G.726", 0x50: "MPEG audio", 0x55: "MP3", 0x64: "G.726",
    0x65: "G.722", 0x92: "AC-3 (S/PDIF)", 0xFF: "AAC", 0x160: "WMA", 0x161: "WMA", 0x162: "WMA", 0x674F: "Vorbis",
    0x1602: "AAC", 0x1610: "AAC", 0x2000: "AC-3", 0x2001: "DTS",
}  # fmt: skip
PAD = 9  # bytes by which a size may be off without a sample missing: a pad byte, or the header counted too
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
PAGES = 1 << 21  # of an Ogg: four hours have 60,000


def structure(path: Path) -> Structure:
    """Walk a file.

    Raises
    ------
    AudioError
        What cannot be used, and why.
    """
    container, suffix = container_of(path), path.suffix.lower()
    named = next((name for name, suffixes in SUFFIXES_OF.items() if suffix in suffixes), "")
    odd = "" if named == container else f"this is {_article(container)} named {suffix}"
    if odd and BY_AV & {container, named}:
        raise AudioError(f"{path.name}: {odd}; rename it")
    walks = {"WAV": _chunks, "AIFF": _chunks, "FLAC": _flac, "OGG": _pages, "MP3": _mp3, "AAC": _bare}
    found = walks[container](path) if container in walks else Structure(container, by_av=True)
    return replace(found, remark="; ".join(filter(None, (odd, found.remark))))


def _short(path: Path, promised: str, there: str, mend: str = CUT) -> AudioError:
    return AudioError(f"{path.name}: header promises {promised}, {there}; {mend}")


def _number(raw: bytes, order: Any) -> int:
    return int.from_bytes(raw, order)


def _placeholder(size: int) -> bool:
    """Say whether a recorder or a pipe wrote this size before it knew the length."""
    return size == 0 or 0x7FFFF000 <= size <= 0x80000FFF or 0xFFFFF000 <= size <= 0xFFFFFFFF


def _chunks(path: Path) -> Structure:
    """Compare the sizes in a WAV or an AIFF with its bytes."""
    sizes: dict[bytes, int] = {}
    codec = block = start = declared = 0
    with open_regular(path) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(12)
        aiff, order = head[:4] == b"FORM", "big" if head[:4] in {b"FORM", b"RIFX"} else "little"
        whole, at = _number(head[4:8], order), 12
        while not start and len(sizes) < 1000:
            file.seek(at)
            chunk = file.read(8 + 40)
            if len(chunk) < 8:
                break
            name, length, body = chunk[:4], _number(chunk[4:8], order), chunk[8:]
            sizes[name] = length
            if name == b"ds64":
                whole, declared = _number(body[:8], order), _number(body[8:16], order)
            elif name == b"fmt ":
                codec, block = _number(body[:2], order), _number(body[12:14], order)
                codec = _number(body[24:26], order) if codec == 0xFFFE else codec
            elif name in {b"data", b"SSND"}:
                start, declared = at + 8, declared if declared and length == 0xFFFFFFFF else length
            at += 8 + length + (length & 1)
        empty = declared == 0 and not _follows(file, start, size, order, zeros=False)
        unknown = _placeholder(declared) and start + declared != size and not empty
        after = 0 if unknown else _follows(file, start + declared, size, order)
    if not aiff and codec not in WAV_CODECS:
        called = WAV_NAMES.get(codec, f"codec {codec:#06x}")
        raise AudioError(f"{path.name}: {called} in WAV is not read; export as PCM")
    if not start:
        raise AudioError(f"{path.name}: not readable as audio (no sound follows its header); {AGAIN}")
    there, container = size - start, "AIFF" if aiff else "WAV"
    plain = block if not aiff and codec in PLAIN else 0
    if unknown:
        said = "its header was never completed; all that follows it is used" if there else ""
        frames = there // plain if plain else 0
        return Structure(container, not aiff and declared == 0, frames, frames, remark=said)
    missing = [(declared, there), *([] if _placeholder(whole) else [(whole + 8, size)])]
    for promised, arrived in missing:
        if promised - arrived > PAD:
            raise _short(path, f"{promised} bytes", f"{arrived} arrived")
    if after > PAD + 128:
        raise _short(path, f"{declared} bytes of sound", f"{after} more follow", "mend its header or export it again")
    off = max(promised - arrived for promised, arrived in missing)
    said = f"its header counts {counted(off, 'byte')} more than there are" if off > 0 else ""
    return Structure(container, False, min(declared, there) // plain if plain else 0, remark=said)


def _follows(file: IO[bytes], at: int, size: int, order: str, *, zeros: bool = True) -> int:
    """Return how many bytes lie from here to the end that are neither a chunk nor a tag nor, with ``zeros``, zeros."""
    for start in (at, at + 1):
        file.seek(start)
        head = file.read(HEAD)
        chunk = start + 8 + _number(head[4:8], order) <= size + 1 and all(32 <= byte < 127 for byte in head[:4])
        joined = head[:4] in {b"RIFF", b"FORM", b"RF64"}
        if (zeros and not head.strip(b"\0")) or head.startswith(TAGS) or (len(head) >= 8 and chunk and not joined):
            return 0
    return size - at


def _flac(path: Path) -> Structure:
    """Compare the total in a FLAC's header with its frames."""
    with open_regular(path) as file:
        file.seek(_after_id3(file))
        head = file.read(42)
    rate, promised = max(1, _number(head[18:21], "big") >> 4), _number(head[21:26], "big") & 0xFFFFFFFFF
    _, frames, _, _ = _packets(path, "FLAC")
    if frames < promised:
        both = "the file is cut short, or damaged, or its header is wrong; export it again"
        there = f"{frames} ({frames / rate:.2f} s) are there"
        raise _short(path, f"{promised} samples ({promised / rate:.2f} s)", there, both)
    said = "" if promised else "its header does not say how long it is"
    bits = (head[20] & 1) << 4 | head[21] >> 4
    return Structure("FLAC", promised != frames, frames, frames, promised, said, f"PCM_{bits + 1}")


def _packets(path: Path, container: str) -> tuple[int, int, int, int]:
    """Return packets, samples, bytes and sample rate of a file's sound, as FFmpeg's demuxer finds them, undecoded."""
    number = length = size = 0
    with open_stream(path, container) as (file, stream):
        for packet in file.demux(stream):
            if packet.size:
                number, size, length = number + 1, size + packet.size, length + (packet.duration or 0)
        rate = max(1, stream.codec_context.sample_rate)
        return number, round(length * stream.time_base * rate), size, rate


def _bare(path: Path) -> Structure:
    """Count the frames of AAC without a container, which promises nothing."""
    return Structure("AAC", by_av=True, length=_packets(path, "AAC")[1])


def _mp3(path: Path) -> Structure:
    """Compare the count in an MP3's first frame, if there is one, with its frames."""
    with open_regular(path) as file:
        start = _after_id3(file)
        file.seek(start)
        head = file.read(HEAD)
        size = os.fstat(file.fileno()).st_size
    number, samples, held, rate = _packets(path, "MP3")
    if not number:
        raise AudioError(f"{path.name}: not readable as audio (no frame of MP3 in it); {AGAIN}")
    at = max(head[:192].find(b"Xing"), head[:192].find(b"Info"))
    flags = _number(head[at + 4 : at + 8], "big") if at > 0 else 0
    count = _number(head[at + 8 : at + 12], "big") if flags & 1 else 0
    counted = _number(head[at + 12 : at + 16], "big") if flags & 3 == 3 else 0
    each = samples // number
    if not count:  # whatever libsndfile estimates then, it stops there, and at a kilobyte of something else
        rest = size - start - held
        with suppress(sf.LibsndfileError), sf.SoundFile(path) as sound:
            by_av = at > 0 or sound.frames < samples - each or rest > 1024
            return Structure("MP3", by_av, samples - each, samples)
        return Structure("MP3", True, samples - each, samples)
    here = head.find(b"\xff")
    missing = counted - held - _frame_size(head[here : here + 6])[0]  # bytes; some programs count a tag of 128
    if number < count and (missing > 160 or (number < count - 1 and not counted)):  # some count the header's own frame
        raise _short(path, f"{count * each / rate:.2f} s", f"{samples / rate:.2f} s are there")
    if abs(number - count) > 1:
        return Structure("MP3", True, samples - each - 4096, samples, count * each)
    return Structure("MP3", False, samples - each - 2 * 4096)


OGG_CODECS = ((b"\x01vorbis", "Vorbis"), (b"OpusHead", "Opus"), (b"\x7fFLAC", "FLAC"))
OGG_OTHERS = ((b"\x80theora", "a video (Theora)"), (b"BBCD", "a video (Dirac)"), (b"Speex   ", "Speex"))


@dataclass
class _OggStream:
    """One logical stream of an Ogg: what it holds, and where its pages have come to."""

    codec: str
    rate: int
    channels: int
    skipped: int
    serial: int
    page: int = 0
    first: int = -1
    last: int = 0
    ended: bool = False


def _pages(path: Path) -> Structure:
    """Walk the pages of an Ogg: links of a chain, pages that are missing, the end of each link."""
    links: list[_OggStream] = []
    size = path.stat().st_size
    with open_regular(path) as file:
        file.seek(_after_id3(file))
        for _ in range(PAGES):
            head = file.read(27)
            if head[:4] != b"OggS" or len(head) < 27:
                break
            lacing = file.read(head[26])
            length, at = sum(lacing), file.tell()
            flags = head[5]
            granule, serial, page = (_number(head[a:b], "little") for a, b in ((6, 14), (14, 18), (18, 22)))
            if flags & 2 and (link := _link(path, file.read(64)[: length or 1], serial)):
                if links and not links[-1].ended:
                    raise AudioError(f"{path.name}: a part of it has no last page; {CUT}")
                links.append(link)
            elif links and serial == links[-1].serial:
                _turn(path, links[-1], page, granule, flags, whole=at + length <= size)
            file.seek(at + length)
    if not links:
        raise AudioError(f"{path.name}: not readable as audio (no sound in it); {AGAIN}")
    if len({(link.codec, link.rate, link.channels) for link in links}) > 1:
        raise AudioError(f"{path.name}: recordings of unlike formats are joined in it; split it, or {AGAIN}")
    frames = sum(max(0, link.last - max(link.skipped, link.first, 0)) for link in links)
    rate = links[0].rate
    if not links[-1].ended:
        there = f"{frames / rate:.2f} s are there, without a last page"
        raise AudioError(f"{path.name}: {there}; {CUT}")
    said = f"{len(links)} recordings follow one another in it" if len(links) > 1 else ""
    by_av = links[0].codec == "Opus" or len(links) > 1
    return Structure("OGG", by_av, max(0, frames - 8192 * len(links)), frames if by_av else 0, remark=said)


def _link(path: Path, body: bytes, serial: int) -> _OggStream | None:
    """Return what begins with this first packet; None for what is no sound."""
    for magic, name in OGG_OTHERS:
        if body.startswith(magic):
            raise AudioError(f"{path.name}: {name} in Ogg is not read; export its sound as WAV or FLAC")
    codec = next((name for magic, name in OGG_CODECS if body.startswith(magic)), "")
    body = body.ljust(64, b"\0")
    if codec == "Vorbis":
        return _OggStream(codec, max(1, _number(body[12:16], "little")), body[11], 0, serial)
    if codec == "Opus":
        return _OggStream(codec, 48_000, body[9], _number(body[10:12], "little"), serial)
    if codec:
        rate = _number(body[27:30], "big") >> 4
        return _OggStream(codec, max(1, rate), (body[29] >> 1 & 7) + 1, 0, serial)
    return None


def _turn(path: Path, link: _OggStream, page: int, granule: int, flags: int, *, whole: bool) -> None:
    """Go on by a page."""
    if page != link.page + 1 and link.page > 1:
        raise AudioError(f"{path.name}: {page - link.page - 1} pages are missing in its middle; export it again")
    link.page = page
    if granule != 2**64 - 1 and whole:
        if granule and link.first < 0:  # a recorded broadcast counts from where it began
            link.first = granule if granule > 10 * link.rate else 0
        link.last = max(link.last, granule)
    link.ended = bool(flags & 4) and whole


# --- decoding ---------------------------------------------------------------------------------------------------------

NAMES = {  # of FFmpeg's decoders, in libsndfile's words where it has some
    "mp3float": "MPEG_LAYER_III", "mp3": "MPEG_LAYER_III", "pcm_u8": "PCM_U8", "pcm_s8": "PCM_S8", "pcm_mulaw": "ULAW",
    "pcm_alaw": "ALAW", "adpcm_ms": "MS_ADPCM", "adpcm_ima_wav": "IMA_ADPCM",
    **{f"pcm_{a}{e}": b for a, b in (("s16", "PCM_16"), ("s24", "PCM_24"), ("s32", "PCM_32"), ("f32", "FLOAT"),
                                    ("f64", "DOUBLE")) for e in ("le", "be")},
}  # fmt: skip
CALLED = {"ac3": "AC-3", "eac3": "E-AC-3", "dca": "DTS", "ac4": "AC-4", "truehd": "TrueHD", "amrnb": "AMR",
          "amrwb": "AMR", "wmav2": "WMA", "mp4als": "MPEG-4 ALS", "qdm2": "QDesign"}  # fmt: skip
NOISE = {  # what a stream for a decoder of its own looks like as 16-bit samples
    "a DTS": (b"\xfe\x7f\x01\x80", b"\xff\x1f\x00\xe8", b"\x7f\xfe\x80\x01", b"\x1f\xff\xe8\x00"),
    "a Dolby or DTS": (b"\x72\xf8\x1f\x4e",),
}
NOISE_FRAMES = 1 << 17
ATTACHED_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC: a cover
CHAIN = 2  # raise it when a file is cut otherwise than before; 2: long ones by window


def version() -> str:
    """Return the versions of PyAV, its decoders and their use here: stored signals of such files are keyed by them."""
    import av

    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"av {av.__version__}, libavcodec {codec}, chain {CHAIN}"


def handles(path: Path) -> bool:
    """Say whether a sound file is PyAV's to decode: M4A and AAC by suffix, Opus by its first page."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES_OF["OGG"]:
        with suppress(AudioError), open_regular(path) as file:
            return b"OpusHead" in file.read(64)
    return any(suffix in SUFFIXES_OF[name] for name in BY_AV)


@contextmanager
def open_stream(path: Path, container: str) -> Iterator[tuple[Any, Any]]:
    """Yield (container, its first audio stream) of PyAV; whatever it raises becomes an ``AudioError``."""
    import av

    demuxer, decoders = DEMUXERS[container]
    options = {"protocol_whitelist": "none", "codec_whitelist": ",".join(decoders), "enable_drefs": "0"}
    try:
        with (
            open_regular(path) as file,
            av.open(file, format=demuxer, options=options, metadata_errors="replace") as found,
        ):
            if not found.streams.audio:
                raise AudioError(f"{path.name}: no audio in it; leave it out")
            stream = found.streams.audio[0]
            context = stream.codec_context
            if str(context.codec_tag) in PROTECTED:
                raise AudioError(f"{path.name}: encrypted (a protected purchase); get a copy without protection")
            if context.codec.name not in decoders:  # the list above binds what guesses, not what is opened here
                called = CALLED.get(context.codec.name, context.codec.name.upper())
                raise AudioError(f"{path.name}: {called} in {container} is not read; {AGAIN}")
            yield found, stream
    except (av.error.FFmpegError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).strip().rstrip(".")
        raise AudioError(f"{path.name}: not readable as audio ({reason}); {AGAIN}") from None


class Reader:
    """The sound that PyAV decodes, in its order: what ``soundfile.SoundFile`` is for libsndfile.

    Attributes
    ----------
    samplerate, channels, frames : int
        Hz, channels, and the samples that the header promises (0 if it does not).
    """

    def __init__(self, path: Path, kind: str, container: Any, stream: Any) -> None:
        context = stream.codec_context
        self.samplerate, self.channels, seconds = int(context.sample_rate), int(context.channels), 0.0
        if kind == "M4A":  # elsewhere it is often an estimate
            seconds = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / 1e6
        self.frames = round(seconds * self.samplerate)
        self.codec = NAMES.get(context.codec.name, str(context.codec.name).upper())
        self._path, self._kind, self._container, self._stream = path, kind, container, stream
        self._pieces = self._decoded()
        self._held: list[np.ndarray] = []

    def _decoded(self) -> Iterator[np.ndarray]:
        """Yield ``[C, samples]`` as it comes; the limit of length holds here too, as a header may lie."""
        import av

        resampler = av.AudioResampler(format="fltp", rate=self.samplerate)
        total, gapless = 0, self._kind == "FLAC"
        for frame in self._container.decode(self._stream):
            begins = 0 if frame.pts is None else round(frame.pts * frame.time_base * self.samplerate)
            if gapless and begins > total:
                raise AudioError(f"{self._path.name}: {begins - total} samples are missing in its middle; {AGAIN}")
            if frame.sample_rate != self.samplerate:
                raise AudioError(f"{self._path.name}: its sample rate changes; {AGAIN}")
            for piece in map(av.AudioFrame.to_ndarray, resampler.resample(frame)):
                if total and piece.shape[0] != self.channels:
                    raise AudioError(f"{self._path.name}: its number of channels changes; {AGAIN}")
                self.channels = piece.shape[0]
                total += piece.shape[1]
                yield piece
            if total > MAX_SECONDS * self.samplerate:
                refuse_beyond(self._path, self.channels, self.samplerate, total / self.samplerate)
        if not total:
            raise AudioError(f"{self._path.name}: no audio in it; leave it out")

    def read(self, frames: int = -1, **_: Any) -> np.ndarray:
        """Return the next samples as float32 ``[samples, C]``: as many as asked for, or all; fewer at the end."""
        held = sum(piece.shape[1] for piece in self._held)
        while frames < 0 or held < frames:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held.append(piece)
            held += piece.shape[1]
        joined = np.concatenate([np.zeros((self.channels, 0), np.float32), *self._held], axis=1)
        count = held if frames < 0 else min(frames, held)
        self._held = [joined[:, count:].copy()]  # a copy, for a view would hold what was read
        return joined[:, :count].T


class Sound:
    """An open recording, read in its order to its end; the end says whether all of it was there.

    Attributes
    ----------
    info : FileInfo
        Container, codec, sample rate, channels, and the length (s) that is expected before it is decoded.
    decoded : int
        Samples of one channel read so far.
    remark : str
        What a user should know; complete once everything was read.
    """

    def __init__(self, path: Path, found: Structure, reader: Any, shape: str) -> None:
        self._path, self._found, self._reader = path, found, reader
        self.decoded, self.remark, self.rate = 0, found.remark, int(reader.samplerate)
        self._expected = found.frames or (0 if found.promised else int(reader.frames))
        length = int(found.length or reader.frames)
        codec = found.codec or (reader.codec if found.by_av else reader.subtype)
        self.info = FileInfo(shape, codec, self.rate, int(reader.channels), length / max(1, self.rate))

    def read(self, frames: int = -1) -> np.ndarray:
        """Return the next samples as float32 ``[C, samples]``; fewer than asked for at the end.

        Raises
        ------
        AudioError
            What does not decode, is less than there should be, or is no sound.
        """
        import av

        try:
            data: np.ndarray = self._reader.read(frames, dtype="float32", always_2d=True).T
        except (sf.LibsndfileError, av.error.FFmpegError) as error:
            raise unreadable(self._path, error) from None
        if not self.decoded:
            self._refuse_noise(data)
        self.decoded += data.shape[1]
        if frames < 0 or data.shape[1] < frames:
            self._finish()
        return data

    def whole_info(self) -> FileInfo:
        """Return what the file is, with the length of what was decoded."""
        return replace(self.info, duration_s=self.decoded / self.rate)

    def _finish(self) -> None:
        rate, slack = self.rate, 0 if self._found.frames else self.rate // 10
        if self.decoded < self._expected - slack:
            there = f"{self.decoded / rate:.2f} s decode"
            raise _short(self._path, f"{self._expected / rate:.2f} s", there)
        loose = 0 if self._found.container == "FLAC" else rate // 10
        if self._found.promised and abs(self.decoded - self._found.promised) > loose:
            promised = f"{self._found.promised} samples ({self._found.promised / rate:.2f} s)"
            said = f"its header promises {promised}, {self.decoded} ({self.decoded / rate:.2f} s) decode and are used"
            self.remark = "; ".join(filter(None, (self._found.remark, said)))

    def _refuse_noise(self, data: np.ndarray) -> None:
        """Refuse what is meant for another decoder: as samples it is noise."""
        if self._found.container in {"MP3", "AAC", "OGG"} or not 1 <= len(data) <= 2:
            return
        with np.errstate(invalid="ignore"):
            raw = (data[:, :NOISE_FRAMES].T * 32768).astype("<i2").tobytes()
        for kind, marks in NOISE.items():
            if max(raw.count(mark) for mark in marks) >= 4:
                raise AudioError(
                    f"{self._path.name}: noise: {kind} stream in {_article(self._found.container)}; decode it and "
                    "export it as WAV or FLAC"
                )


def unreadable(path: Path, error: Exception) -> AudioError:
    """Return what is said of a file that a decoder refuses."""
    reason = str(getattr(error, "strerror", None) or error).rsplit(":", 1)[-1].strip().rstrip(".")
    return AudioError(f"{path.name}: not readable as audio ({reason}); {AGAIN}")


def refuse_beyond(path: Path, channels: int, rate: int, seconds: float) -> None:
    """Refuse a recording, of whatever format, that is beyond the limits."""
    if not 0 < channels <= MAX_CHANNELS or not 0 < rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{path.name}: {channels} channels at {rate} Hz is beyond the limits ({MAX_CHANNELS} channels, "
            f"{MAX_SAMPLE_RATE} Hz); convert it first"
        )
    if seconds > MAX_SECONDS:
        raise AudioError(f"{path.name}: longer than {MAX_SECONDS / 3600:.0f} h; split it into works first")


@contextmanager
def opened(path: Path) -> Iterator[Sound]:
    """Open a recording to be read in its order.

    Raises
    ------
    AudioError
        What cannot be used, and why; beyond the limits of length, channels and sample rate, before it is decoded.
    """
    found = structure(path)
    if found.by_av:
        with open_stream(path, found.container) as (container, stream):
            reader = Reader(path, found.container, container, stream)
            rate = reader.samplerate
            refuse_beyond(path, reader.channels, rate, max(found.length, reader.frames) / max(1, rate))
            shape = path.suffix[1:].upper() if found.container in BY_AV else found.container
            if any(not video.disposition & ATTACHED_PICTURE for video in container.streams.video):
                found = replace(found, remark="a video; its sound is used")
            if (tracks := len(container.streams.audio)) > 1:
                found = replace(found, remark=f"the first of its {tracks} sound tracks is used")
            yield Sound(path, found, reader, shape)
        return
    try:
        with sf.SoundFile(path) as file:
            length = found.length or file.frames
            refuse_beyond(path, file.channels, file.samplerate, length / max(1, file.samplerate))
            yield Sound(path, found, file, file.format)
    except (sf.LibsndfileError, OSError) as error:
        raise unreadable(path, error) from None
