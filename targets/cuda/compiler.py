"""CUDA source to one fat binary: machine code for several architectures, and PTX for those that come later.

NVRTC and nvFatbin, libraries of the packages ``nvidia-cuda-nvrtc`` and ``nvidia-nvfatbin``, do it by default; ``nvcc``
serves where they are not installed. Neither needs a GPU or a driver. Nothing is approximated: no fast math, and no
product is contracted with a sum (``--fmad=false``), so that the same operations are rounded as on a CPU.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from ldsnn_compiler.errors import LdsnnError, Problem

#: what both compilers are told about arithmetic
EXACT = ("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
#: of generated code no warning tells anybody anything, and thousands would hide an error
QUIET = "-w"
HINT = "pip install 'ldsnn-compiler[cuda]', or put CUDA 13's nvcc on PATH"

#: the few names that TVM's code takes from CUDA's C++ library, so that NVRTC needs no package of headers
HEADERS = {
    "cuda/std/cstdint": """
        #define INFINITY (__int_as_float(0x7f800000))
        namespace cuda { namespace std {
        typedef signed char int8_t; typedef unsigned char uint8_t;
        typedef short int16_t; typedef unsigned short uint16_t;
        typedef int int32_t; typedef unsigned int uint32_t;
        typedef long long int64_t; typedef unsigned long long uint64_t;
        } }""",
    "cuda/std/type_traits": """
        namespace cuda { namespace std {
        template <class A, class B> struct is_same { static constexpr bool value = false; };
        template <class A> struct is_same<A, A> { static constexpr bool value = true; };
        template <class A, class B> constexpr bool is_same_v = is_same<A, B>::value;
        template <class> struct is_integral; template <class> struct is_signed; template <class> struct is_unsigned;
        template <class> struct is_floating_point; template <bool, class> struct enable_if;
        template <bool, class, class> struct conditional;
        } }""",
}


def missing() -> str:
    """What a machine lacks to compile CUDA, or ""."""
    if _nvrtc_path() is not None or shutil.which("nvcc"):
        return ""
    return "neither NVRTC (packages nvidia-cuda-nvrtc and nvidia-nvfatbin) nor nvcc"


def fat_binary(source: str, architectures: Sequence[str]) -> bytes:
    """``source`` for every architecture (``sm_86`` ...), and as PTX for the lowest of them."""
    images = {arch: cubin(source, arch) for arch in architectures}
    return _joined(images, {lowest(architectures): ptx(source, lowest(architectures))})


def lowest(architectures: Sequence[str]) -> str:
    """The oldest of the architectures."""
    return min(architectures, key=lambda arch: int(arch.removeprefix("sm_")))


@lru_cache(maxsize=16)
def cubin(source: str, arch: str) -> bytes:
    """Machine code for one architecture: an ELF file."""
    return _compiled(source, arch, "CUBIN")


@lru_cache(maxsize=16)
def ptx(source: str, arch: str) -> bytes:
    """PTX for one architecture and all that come after it."""
    return _compiled(source, arch, "PTX")


def _compiled(source: str, arch: str, kind: str) -> bytes:
    if lacking := missing():
        raise LdsnnError(Problem(f"CUDA cannot be compiled here: there is {lacking}", hint=HINT))
    if _nvrtc_path() is None:
        return _nvcc(source, arch, kind)
    return _Nvrtc().compiled(source, arch, kind)


# ---- libraries of NVIDIA's packages


@cache
def package_library(name: str) -> Path | None:
    """The shared library of that name (``libnvrtc.so.13``) in one of NVIDIA's pip packages, if it is installed."""
    spec = find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None else None
    found = (p for folder in folders or () for p in sorted(Path(folder).glob(f"*/lib/{name}")))
    return next(found, None)


def _nvrtc_path() -> Path | None:
    return package_library("libnvrtc.so.13") if package_library("libnvfatbin.so.13") else None


class _Nvrtc:
    """NVRTC through its C interface."""

    def __init__(self) -> None:
        path = _nvrtc_path()
        assert path is not None
        for builtins in path.parent.glob("libnvrtc-builtins.so.*"):  # NVRTC asks the loader for it by its bare name
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(path))
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def compiled(self, source: str, arch: str, kind: str) -> bytes:
        """``kind`` is CUBIN or PTX."""
        target = arch if kind == "CUBIN" else arch.replace("sm_", "compute_")
        options = [f"--gpu-architecture={target}", "-default-device", "--std=c++17", QUIET, *EXACT]
        program = ctypes.c_void_p()
        texts, names = (
            (ctypes.c_char_p * len(HEADERS))(*[x.encode() for x in part]) for part in (HEADERS.values(), HEADERS)
        )
        self._check(
            self.library.nvrtcCreateProgram(
                ctypes.byref(program), source.encode(), b"ldsnn.cu", len(HEADERS), texts, names
            )
        )
        try:
            given = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
            if self.library.nvrtcCompileProgram(program, len(options), given):
                log = self._taken(program, "ProgramLog").decode(errors="replace").strip(chr(0))
                raise LdsnnError(Problem(f"NVRTC refuses a kernel: {log}", where=arch))
            return self._taken(program, kind)
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))

    def _taken(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(self.library[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
        content = ctypes.create_string_buffer(size.value)
        self._check(self.library[f"nvrtcGet{what}"](program, content))
        return content.raw

    def _check(self, status: int) -> None:
        if status:
            raise LdsnnError(f"NVRTC: {self.library.nvrtcGetErrorString(status).decode()}")


def _joined(cubins: dict[str, bytes], texts: dict[str, bytes]) -> bytes:
    """One fat binary of several images."""
    if _nvrtc_path() is None:
        return _fatbinary(cubins, texts)
    library = ctypes.CDLL(str(package_library("libnvfatbin.so.13")))

    def check(status: int) -> None:
        if status:
            raise LdsnnError(f"nvFatbin cannot join the binaries: error {status}")

    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = (ctypes.c_char_p * 2)(b"-64", b"-host=linux")
    check(library.nvFatbinCreate(ctypes.byref(handle), options, ctypes.c_size_t(2)))
    try:
        for add, images in ((library.nvFatbinAddCubin, cubins), (library.nvFatbinAddPTX, texts)):
            for arch, image in images.items():
                options_of = (ctypes.c_char_p(None),) if add is library.nvFatbinAddPTX else ()
                number = arch.removeprefix("sm_").encode()
                check(add(handle, image, ctypes.c_size_t(len(image)), number, b"ldsnn", *options_of))
        check(library.nvFatbinSize(handle, ctypes.byref(size)))
        content = ctypes.create_string_buffer(size.value)
        check(library.nvFatbinGet(handle, content))
        return content.raw
    finally:
        library.nvFatbinDestroy(ctypes.byref(handle))


# ---- nvcc


def _nvcc(source: str, arch: str, kind: str) -> bytes:
    target = [f"-arch={arch}"] if kind == "CUBIN" else [f"-arch={arch.replace('sm_', 'compute_')}"]
    return _in_folder(
        {"net.cu": source.encode()},
        lambda folder: ["nvcc", f"--{kind.lower()}", "--std=c++17", QUIET, *target, *EXACT, "-o", f"{folder}/out",
                        f"{folder}/net.cu"],
    )  # fmt: skip


def _fatbinary(cubins: dict[str, bytes], texts: dict[str, bytes]) -> bytes:
    files = {f"{arch}.cubin": image for arch, image in cubins.items()}
    files |= {f"{arch}.ptx": image for arch, image in texts.items()}

    def command(folder: Path) -> list[str]:
        images = [f"--image3=kind=elf,sm={arch[3:]},file={folder}/{arch}.cubin" for arch in cubins]
        images += [f"--image3=kind=ptx,sm={arch[3:]},file={folder}/{arch}.ptx" for arch in texts]
        return ["fatbinary", "-64", f"--create={folder}/out", *images]

    return _in_folder(files, command)


def _in_folder(files: dict[str, bytes], command: Callable[[Path], list[str]]) -> bytes:
    """Run a tool over files in a folder of their own; gives what it left in ``out``."""
    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        folder = Path(scratch)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        line = command(folder)
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LdsnnError(Problem(f"refuses a kernel: {(done.stderr or done.stdout).strip()}", where=line[0]))
        return (folder / "out").read_bytes()
