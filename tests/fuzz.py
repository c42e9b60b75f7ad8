"""Broken and hostile files for the readers of weights and pictures, in one process of 2 GB.

``python tests/fuzz.py weights --count 20000`` or ``pictures --count 2000`` prints one line of JSON:
how many files of each format were refused and accepted, the longest time, the largest memory. It
fails with a message at the first file that a reader does not answer as it should; a crash or a
lack of memory of this process is a failure too. test_fuzz.py runs it with smaller counts.

The compiled readers' own processes are forked from this one, with all packages imported, in
place of being started: the same function under the same limits, a hundred times faster. One file
in a hundred is read in a process that is started.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import collections
import hashlib
import io
import json
import logging
import resource
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import weight_files as files

SPACE = 2 << 30  # bytes of address space
MEMORY = 1 << 30  # bytes in use, most of all
SECONDS = 10  # of processors, for one file

WORDS = [0, 1, 2, 3, 64, 0x7F, 0x80, 0xFF, 0x112, 0x7FFF, 0xFFFF, 1 << 20, (1 << 31) - 1, 1 << 31]
WORDS += [(1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, 0x7F800000, 0x7FC00000, 0xF993FAC9]
NAMES = [
    b"conv1_1",
    b"conv1_2",
    b"weight",
    b"bias",
    b"features",
    b"shape",
    b"descr",
    b"<f4",
    b"F32",
]
NAMES += [b"data_offsets", b"float32", b"block1", b"kernel", b"layers", b"filters", b"FloatStorage"]
OTHERS = [
    b"conv1_1",
    b"conv1_2",
    b"weight",
    b"bias",
    b"<f8",
    b"<f2",
    b">f4",
    b"|O8",
    b"<c8",
    b"F64",
]
OTHERS += [b"F16", b"I64", b"", b"\x00", b"\xff\xfe", b"../x", b"LongStorage", b"a" * 300]


def mutated(data, random):
    """One to three changes of different kinds."""
    data = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if not data:
            break
        kind = random.randint(9)
        # Headers stand at the beginning, directories of archives at the end.
        span = [len(data), min(len(data), 600), min(len(data), 64)][random.randint(3)]
        place = random.randint(span)
        if random.randint(6) == 0:
            place = len(data) - 1 - place
        if kind == 0:
            del data[place:]
        elif kind == 1:
            data[place] ^= 1 << random.randint(8)
        elif kind == 2:
            data[place] = random.randint(256)
        elif kind == 3:
            form = "<BHIQ"[1 + random.randint(4)]
            size = struct.calcsize("<" + form)
            word = int(WORDS[random.randint(len(WORDS))]) % (1 << (8 * size))
            order = "<>"[random.randint(2)]
            data[place : place + size] = struct.pack(order + form, word)
        elif kind == 4:
            del data[place : place + random.randint(1, 64)]
        elif kind == 5:
            data[place:place] = random.bytes(random.randint(1, 64))
        elif kind == 6:
            other, length = random.randint(len(data)), random.randint(1, 256)
            data[place : place + length] = data[other : other + length]
        elif kind == 7:
            _rename(data, random)
        else:
            digits = [i for i, c in enumerate(data[:2000]) if chr(c).isdigit()]
            if digits:
                data[digits[random.randint(len(digits))]] = ord("0") + random.randint(10)
    return bytes(data)


def _rename(data, random):
    there = [name for name in NAMES if name in data]
    if there:
        name = there[random.randint(len(there))]
        at = data.find(name)
        if random.randint(2):
            at = data.rfind(name)
        data[at : at + len(name)] = OTHERS[random.randint(len(OTHERS))]


def inside_zip(data, random):
    """Change a member, so that the archive and its checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        chosen = random.randint(len(archive.namelist()))
        victim = archive.namelist()[chosen]

    def change(name, content):
        return [(name, mutated(content, random) if name == victim else content)]

    return files.rezip(data, change)


def inside_png(data, random):
    """Change a chunk, so that its length and checksum are right."""
    chunks, at = [], 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    chosen = random.randint(len(chunks))
    kind, content = chunks[chosen]
    if kind == b"IDAT" and random.randint(2):
        content = zlib.compress(mutated(zlib.decompress(content), random))
    else:
        content = mutated(content, random)
    chunks[chosen] = kind, content
    out = [data[:8]]
    for kind, content in chunks:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        out.append(struct.pack(">I", len(content)) + kind + content + crc)
    return b"".join(out)


def bases(folder):
    """Format -> well-formed files, small ones."""
    files.DENSE = False
    arrays = files.vgg_arrays(blocks=1)
    made = collections.defaultdict(list)
    for write, kind, _, _ in files.WRITERS.values():
        made[kind].append(write(arrays, folder))
    return made


SHARES = {
    "params": 0.28,
    "npz": 0.27,
    "safetensors": 0.15,
    "hdf5": 0.15,
    "mat": 0.08,
    "torch": 0.07,
}


def unpacked(data):
    """The file's bytes, and those of compressed parts."""
    parts = [data]
    if data[:2] == b"PK":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                parts += [archive.read(name) for name in archive.namelist()]
        except Exception:  # what cannot be unpacked holds no weights
            pass
    at = 128  # MATLAB's elements follow its header
    while data[:6] == b"MATLAB" and at + 8 < len(data):
        kind, size = struct.unpack("<II", data[at : at + 8])
        if kind == 15:
            parts.append(zlib.decompressobj().decompress(data[at + 8 : at + 8 + size]))
        at += 8 + size
    return parts


def held(array, parts):
    """Whether the array's bytes stand in the file, in either order of axes and any precision."""
    forms = [array.tobytes("C"), array.tobytes("F")]
    if array.dtype == np.float32:
        half = array.astype(np.float16)
        forms += [half.tobytes("C"), (array.view(np.uint32) >> 16).astype(np.uint16).tobytes()]
    return any(form in part for form in forms for part in parts)


def spent():
    """Seconds of processors that this process and its children have taken."""
    return sum(os.times()[:4])


class Log(logging.Handler):
    """Keeps the messages."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def forked(kind, data):
    """Stands in for formats._spawn."""
    from fmi.sources import formats

    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 2)
                status, answer, message = formats.answer_to(kind, data)
                out.write(answer if status == formats.READ else message.encode("utf-8", "replace"))
                out.flush()
            finally:
                os._exit(status)
        _, state, usage = os.wait4(child, 0)
        forked.memory = max(forked.memory, usage.ru_maxrss * 1024)
        status = -os.WTERMSIG(state) if os.WIFSIGNALED(state) else os.WEXITSTATUS(state)
        out.seek(0)
        content = out.read()
    read = status == formats.READ
    return status, content if read else b"", "" if read else content.decode("utf-8", "replace")


forked.memory = 0


def fuzz_weights(count, seed, folder, outcome):
    from fmi.errors import InputError
    from fmi.networks import names as names_
    from fmi.networks import weights
    from fmi.sources import formats

    made = bases(folder)
    spawn = formats._spawn
    log = Log()
    logging.getLogger("fmi").addHandler(log)
    parts = count / sum(SHARES.values())
    plan = [kind for kind, share in SHARES.items() for _ in range(round(parts * share))]
    path = folder / "mutated"
    for index, kind in enumerate(plan):
        random = np.random.RandomState([seed, index])
        base = made[kind][random.randint(len(made[kind]))]
        deep = base[:2] == b"PK" and random.randint(2)
        data = inside_zip(base, random) if deep else mutated(base, random)
        path.write_bytes(data)
        weights._warn.cache_clear()
        log.lines.clear()
        real = index % 100 == 0
        formats._spawn = spawn if real else forked
        begin = spent()
        answer = "accepted"
        try:
            found = weights.load(path, ["relu1_1"])
        except InputError as error:
            answer = "refused"
            assert "\n" not in str(error) and str(error).startswith(str(path)), repr(str(error))
        outcome.seen(kind, answer, spent() - begin)
        if answer == "accepted":
            digest = hashlib.sha256(data).hexdigest()
            assert any(digest in line for line in log.lines), "accepted in silence"
            assert found.sha256 == digest and not found.verified
            for name, array in found.arrays.items():
                assert np.isfinite(array).all(), f"{name} is not finite"
            named = names_.named_arrays(formats.read(data)[1])[2]
            parts = unpacked(data)
            for key, array in named.items():
                assert held(array, parts), f"{key} is not in the file"
    outcome.memory = max(outcome.memory, forked.memory)


def picture_bases():
    from PIL import Image

    random = np.random.RandomState(0)
    noise = Image.fromarray(random.randint(0, 256, (24, 32, 4), dtype=np.uint8), "RGBA")
    rgb = noise.convert("RGB")
    made = collections.defaultdict(list)

    def add(kind, image, **options):
        stream = io.BytesIO()
        image.save(stream, format=kind, **options)
        made[kind].append(stream.getvalue())

    exif = Image.Exif()
    exif[274] = 6
    sixteen = Image.fromarray(random.randint(0, 65536, (24, 32)).astype(np.uint16))
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        add(kind, rgb)
    for image in (noise, rgb.convert("P"), noise.convert("LA"), rgb.convert("1"), sixteen):
        add("PNG", image)
    add("PNG", rgb, exif=exif, icc_profile=profile)
    add("JPEG", rgb, exif=exif, icc_profile=profile, progressive=True)
    add("JPEG", rgb.convert("CMYK"))
    add("JPEG", rgb.convert("L"))
    add("WEBP", noise, lossless=True)
    add("WEBP", rgb, save_all=True, append_images=[rgb.transpose(0)])
    for option in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        add("TIFF", rgb, compression=option)
    add("TIFF", sixteen)
    add("GIF", rgb.convert("P"), save_all=True, append_images=[rgb.transpose(1).convert("P")])
    add("GIF", noise.convert("P"), transparency=3)
    add("BMP", rgb.convert("P"))
    return made


def fuzz_pictures(count, seed, folder, outcome):
    from fmi import pictures
    from fmi.errors import InputError

    made = picture_bases()
    kinds = list(made)
    path = folder / "mutated"
    for index in range(count):
        random = np.random.RandomState([seed, index])
        kind = kinds[index % len(kinds)]
        base = made[kind][random.randint(len(made[kind]))]
        change = inside_png if kind == "PNG" and random.randint(2) else mutated
        path.write_bytes(change(base, random))
        begin = spent()
        answer = "accepted"
        try:
            pixels = pictures.read(path).pixels
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            assert pixels.size
        except InputError as error:
            answer = "refused"
            assert "\n" not in str(error) and str(error).startswith(str(path)), repr(str(error))
        outcome.seen(kind, answer, spent() - begin)


class Outcome:
    """What happened so far."""

    def __init__(self):
        self.counts = collections.defaultdict(lambda: {"refused": 0, "accepted": 0, "seconds": 0})
        self.memory = 0

    def seen(self, kind, answer, seconds):
        entry = self.counts[kind]
        entry[answer] += 1
        entry["seconds"] = round(max(entry["seconds"], seconds), 2)
        assert seconds < SECONDS, f"a file of {kind} took {seconds:.1f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["weights", "pictures"])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    if chosen.what == "weights":
        import h5py  # noqa: F401
        import safetensors.numpy  # noqa: F401
        import scipy.io  # noqa: F401

        try:
            import torch  # noqa: F401
        except ImportError:
            del SHARES["torch"]
            for label in [key for key, value in files.WRITERS.items() if value[1] == "torch"]:
                del files.WRITERS[label]
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        run = fuzz_weights if chosen.what == "weights" else fuzz_pictures
        try:
            run(chosen.count, chosen.seed, Path(folder), outcome)
        except Exception:
            traceback.print_exc()
            kept = Path(tempfile.mkstemp(".mutated")[1])
            kept.write_bytes((Path(folder) / "mutated").read_bytes())
            sys.exit(f"failed; the file is kept as {kept}")
    for kind, entry in outcome.counts.items():
        assert chosen.count < 1000 or (entry["refused"] and entry["accepted"]), kind
    # Not getrusage's ru_maxrss for this process, which begins with what the parent took.
    status = Path("/proc/self/status").read_text()
    own = next(int(n.split()[1]) for n in status.splitlines() if n.startswith("VmHWM")) * 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    most = max(outcome.memory, own, children)
    assert most < MEMORY, f"{most / 1e6:.0f} MB of memory were in use"
    total = sum(
        entry[answer]
        for entry in outcome.counts.values()
        for answer in entry
        if answer != "seconds"
    )
    print(json.dumps({"files": total, "MB": round(most / 1e6), **outcome.counts}))


if __name__ == "__main__":
    main()
