"""The compiled loops, links, and the page on PyPI: what setup.cfg cannot describe."""

import glob
import itertools
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError

if not os.path.isdir("kbptt/callbacks"):
    raise SystemExit(
        "kbptt/callbacks is a symbolic link to the folder callbacks, and this checkout has a file "
        "in its place. Check it out again with links (on Windows, turn on developer mode first): "
        "git config core.symlinks true && git checkout -- kbptt/callbacks"
    )

# Of -O3 what makes the loops fast and not what makes them long; of -O2 not what does nothing for
# them: a third of the time to build. Without the last two GCC turns a clamp into branches with
# parts of the loop in each.
GCC_OPTIONS = [
    "-ftree-vectorize",
    "-fvect-cost-model=dynamic",
    "-fpeel-loops",
    "-fsplit-loops",
    "-funswitch-loops",
    "-fno-gcse",
    "-fno-inline-functions",
    "-fno-tree-pre",
    "-fno-thread-jumps",
]
NOT_BUILT = (
    "The compiled loops of kbptt were not built (%s): layers run the same loops in TensorFlow, "
    "more slowly. To have them, install GCC or Clang and the headers of Python (Debian: g++ and "
    "python3-dev), then kbptt again."
)


class BuildLoops(build_ext):
    """Compiles the translation units, one per instruction set, at the same time."""

    def build_extension(self, extension):
        compile_these = self.compiler.compile

        def compile_in_parallel(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_these([source], **options), sources)
                return list(itertools.chain.from_iterable(objects))

        self.compiler.compile = compile_in_parallel
        try:
            if self.compiler.compiler_type == "msvc":
                raise CompileError("MSVC has no vector types")
            compiler = getattr(self.compiler, "compiler_so_cxx", self.compiler.compiler_so)
            version = [*compiler, "--version"]
            if b"clang" not in subprocess.run(version, capture_output=True).stdout:
                extension.extra_compile_args += GCC_OPTIONS
            super().build_extension(extension)
        except (BaseError, CCompilerError, OSError) as error:
            self.warn(NOT_BUILT % error)


NATIVE = "kbptt/engine/native"
SITE = "https://kbptt.readthedocs.io/en/stable"  # of the last release


def on_the_site(link):
    """A relative link of the README as one to the site; its text alone if it has no page there."""
    shown, text, target, anchor = link["shown"], link["text"], link["target"], link["anchor"] or ""
    if page := re.fullmatch(r"docs/(.+)\.(?:md|ipynb)|([A-Z]+)\.md", target):
        return f"[{text}]({SITE}/{page[1] or page[2].lower()}.html{anchor})"
    if image := re.fullmatch(r"docs/images/(.+)", target):
        return f"{shown}[{text}]({SITE}/_static/{image[1]})"
    return text


def long_description():
    """The README as PyPI shows it, where there is nothing beside it that a link could name."""
    relative = r"(?P<shown>!?)\[(?P<text>[^\]]*)\]\((?!\w+:)(?P<target>[^)#]*)(?P<anchor>#[^)]*)?\)"
    return re.sub(relative, on_the_site, Path("README.md").read_text(encoding="utf-8"))


setup(
    long_description=long_description(),
    cmdclass={"build_ext": BuildLoops},
    # One build for every Python from 3.11 on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    ext_modules=[
        Extension(
            "kbptt.engine.native._loops",
            sorted(glob.glob(f"{NATIVE}/*.cpp")),
            depends=glob.glob(f"{NATIVE}/**/*.hpp", recursive=True),
            py_limited_api=True,
            # No -march: the translation units name their instruction sets, and one is picked when
            # the loops run. NaN and Inf keep their meaning, so no -ffast-math.
            extra_compile_args=[
                "-O2",
                "-std=c++17",
                "-g0",
                "-fvisibility=hidden",
                "-fno-exceptions",
                "-fno-rtti",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-ffp-contract=fast",
            ],
            optional=True,
        )
    ],
)
