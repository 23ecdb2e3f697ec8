"""What is installed: wheel, source distribution, editable install. Built outside the tree."""

import configparser
import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = ["setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md"]
PROJECT += ["LICENSE", "Makefile", "kbptt", "callbacks", "docs", "scripts", "tests"]
UNPACKED = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "images", "build")

CORE = {"tensorflow", "keras", "tensorboard", "numpy", "scipy", "threadpoolctl", "lazy_loader"}
CORE |= {"wrapt"}


def run(*command, cwd, **environment):
    """Standard output of a command that must succeed."""
    environment = {**os.environ, **environment}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def build(what, tree, folder, compiler="false"):
    """Calls a hook of the build backend; without a compiler the compiled loops are left out."""
    folder.mkdir(exist_ok=True)
    code = f"import setuptools.build_meta as backend; backend.build_{what}({str(folder)!r})"
    run(sys.executable, "-c", code, cwd=tree, CC=compiler, CXX=compiler)
    return next(folder.iterdir())


def copy(folder):
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=UNPACKED)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The files of a checkout."""
    return copy(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def sdist(tree):
    """The source distribution, unpacked."""
    archive = build("sdist", tree, tree.parent / "sdist")
    with tarfile.open(archive) as tar:
        tar.extractall(tree.parent / "unpacked", filter="data")
    return next((tree.parent / "unpacked").iterdir())


@pytest.fixture(scope="module")
def wheel(sdist):
    return build("wheel", sdist, sdist.parents[1] / "wheel")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder of packages with what `pip install` makes of the wheel."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    run(*pip, "--target", site, wheel, cwd=site)
    return site


def package_files(folder):
    """The files of the package that are no sources of the compiled loops."""
    kinds = {".py", ".pyi", ".typed", ".html", ".css", ".js", ".j2", ".svg"}
    files = [*folder.glob("kbptt/**/*"), *folder.glob("kbptt/callbacks/*")]
    return {str(path.relative_to(folder)) for path in files if path.suffix in kinds}


def test_the_wheel_and_the_source_distribution_hold_every_file(tree, sdist, wheel):
    expected = package_files(tree)
    assert {"kbptt/__init__.pyi", "kbptt/py.typed", "kbptt/callbacks/__init__.pyi"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert expected <= packed
    assert {name.partition("/")[0] for name in packed if "dist-info" not in name} == {"kbptt"}
    assert expected <= package_files(sdist)
    assert (sdist / "kbptt/callbacks/__init__.py").is_file()
    for folder in ("docs", "scripts", "tests"):
        assert (sdist / folder).is_dir()


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_core_needs_little_and_extras_bring_the_rest(metadata):
    requirements = metadata.get_all("Requires-Dist", [])
    core = {r.partition(">")[0].strip() for r in requirements if "extra ==" not in r}
    assert core == CORE
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "bench",
        "compare",
        "csv",
        "docs",
        "lint",
        "plot",
        "test",
        "tune",
    }


def test_every_dependency_of_a_user_has_a_lower_bound_and_no_upper_one(metadata):
    tools = re.compile(r"extra == ['\"](test|lint|docs|bench)['\"]")
    for requirement in metadata.get_all("Requires-Dist"):
        name = requirement.partition(";")[0].strip()
        if not tools.search(requirement) and not name.startswith("kbptt["):
            assert re.fullmatch(r"[\w-]+>=[\d.]+", name), requirement


LINK = re.compile(r"\]\(([^)]*)\)")


def test_the_page_on_pypi_has_no_link_that_leads_nowhere(metadata):
    """Nothing lies beside it: links of the README lead to pages and images of the site."""
    page = metadata.get_payload(decode=True).decode()
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    links = LINK.findall(page)
    assert links and all(link.startswith("https://") for link in links)
    for link in links:
        place = re.fullmatch(r"https://kbptt\.readthedocs\.io/en/stable/([^#]+)(?:#.*)?", link)
        if place and place[1].startswith("_static/"):
            assert (ROOT / "docs/images" / place[1].removeprefix("_static/")).is_file(), link
        elif place:
            assert list((ROOT / "docs").glob(place[1].removesuffix("html") + "*")), link
    readme = (ROOT / "README.md").read_text()
    assert len(LINK.findall(readme)) > len(links) > 20  # the rest keeps its text alone
    assert LINK.sub("", readme).count("](") == LINK.sub("", page).count("](") == 0


def test_the_settings_of_a_release_name_the_same_pythons(metadata):
    known = {c.rpartition(" ")[2] for c in metadata.get_all("Classifier") if ":: 3." in c}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = project["tool"]["cibuildwheel"]["build"]
    assert {f"3.{minor}" for minor in re.findall(r"cp3(\d+)-\*", built)} == known
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    tried = setup["tox:tox"]["env_list"]
    assert {f"3.{minor}" for minor in re.findall(r"py3(\d+)", tried)} == known
    assert metadata["Requires-Python"] == f">={min(known, key=lambda v: int(v[2:]))}"


def test_the_license_is_in_the_package(metadata, wheel):
    assert metadata.get_all("License-File") == ["LICENSE"]
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


SCRIPT = """\
import numpy as np
import kbptt
assert {root!r} == kbptt.__file__.removesuffix("/kbptt/__init__.py"), kbptt.__file__
layer = kbptt.LSTM(2, truncation=2)
layer(np.zeros((1, 4, 3), "float32"))
assert type(kbptt.callbacks.ZClip()).__module__.startswith("kbptt.")
"""


@pytest.mark.parametrize("how", ["installed", "editable"])
def test_a_folder_called_kbptt_beside_the_script_hides_nothing(how, request, tmp_path):
    """Both installations are an entry of the path, which comes after the script's own folder."""
    site = request.getfixturevalue("installed") if how == "installed" else ROOT
    (tmp_path / "kbptt").mkdir()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(site)))
    run(sys.executable, script, cwd=tmp_path, PYTHONPATH=str(site))


def test_an_editable_install_is_an_entry_of_the_path(tree, tmp_path):
    """No import hook, which editors and type checkers cannot look through."""
    with zipfile.ZipFile(build("editable", tree, tmp_path / "editable")) as archive:
        added = [name for name in archive.namelist() if "dist-info" not in name]
        assert [pathlib.Path(name).suffix for name in added] == [".pth"]
        assert archive.read(added[0]).decode().strip() == str(tree)


def test_a_checkout_without_symbolic_links_says_so(tmp_path):
    """Git writes a text file for a link where the system has none."""
    tree = copy(tmp_path)
    (tree / "kbptt/callbacks").unlink()
    (tree / "kbptt/callbacks").write_text("../callbacks")
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "core.symlinks" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_installed_wheel_runs_the_compiled_loops(tree, tmp_path):
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        pytest.skip("no C compiler")
    wheel = build("wheel", tree, tmp_path / "wheel", compiler)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    run(*pip, "--target", site, wheel, cwd=tmp_path)
    assert list(site.glob("kbptt/engine/native/_loops*"))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(site)))
    run(sys.executable, "-W", "error:kbptt", script, cwd=tmp_path, PYTHONPATH=str(site))
