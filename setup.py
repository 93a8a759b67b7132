"""Build of sparseprune: pure Python plus one optional C++ extension on torch's stable ABI.

Everything runs without the extension (slower, as `sparseprune doctor` says): a failed build is reported, not raised,
unless SPARSEPRUNE_REQUIRE_EXT=1.
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent
REQUIRED = os.environ.get("SPARSEPRUNE_REQUIRE_EXT") == "1"

# 2.11 symbols only, so that one abi3 wheel serves every later torch. Never -march=native or -ffast-math: the samplers
# promise the same bits everywhere, and target_clones picks the instruction set at run time.
COMPILE_ARGS = [
    "-O3",
    "-std=c++20",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Wall",
    # Tuning changes speed alone: wide vectors, and gathers, which gcc's generic tuning of 12 does without.
    *(["-mprefer-vector-width=512", "-mtune=skylake-avx512"] if platform.machine() == "x86_64" else []),
    "-DPy_LIMITED_API=0x030A0000",
    "-DTORCH_TARGET_VERSION=0x020b000000000000",
]


class OptionalBuildExtension(BuildExtension):
    """Reports a failed build instead of raising it, unless SPARSEPRUNE_REQUIRE_EXT=1."""

    def run(self) -> None:
        try:
            super().run()
        except (Exception, SystemExit) as error:  # distutils, ninja and torch each raise their own kind
            if REQUIRED:
                raise
            print(
                f"sparseprune: the C++ extension was not built ({type(error).__name__}: {error}).\n"
                "sparseprune: everything still runs, more slowly; install a C++20 compiler and reinstall to get it.",
                file=sys.stderr,
            )
            self.extensions = []

    def get_source_files(self) -> list[str]:
        return [file for extension in self.extensions for file in (*extension.sources, *extension.depends)]

    def copy_extensions_to_source(self) -> None:
        if self.extensions:
            super().copy_extensions_to_source()


def extension() -> Extension:
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp"))
    headers = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.h"))
    return CppExtension(
        "sparseprune._C",
        sources,
        depends=headers,
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={"cxx": COMPILE_ARGS},
        py_limited_api=True,
    )


setup(
    license="MIT",
    packages=[*find_packages(include=["sparseprune", "sparseprune.*"]), "sparseprune.kernels"],
    package_dir={"sparseprune.kernels": "kernels"},
    package_data={"sparseprune": ["py.typed", "nn/crossover.json"]},
    ext_modules=[extension()],
    cmdclass={"build_ext": OptionalBuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
