"""Runs the type checkers: no error in what users write, no more than before inside kbptt.

``baseline.json`` beside this file holds how many errors pyright finds inside, and how much of the
public interface has a known type, in percent. Both may only get better; ``--write`` stores them.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
BASELINE = HERE / "baseline.json"
BIN = pathlib.Path(sys.executable).parent


def pyright(*arguments: str, cwd: pathlib.Path) -> dict:
    """The report of pyright, run as in the activated environment."""
    done = subprocess.run(
        [BIN / "basedpyright", "--outputjson", *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def describe(error: dict) -> str:
    line = error["range"]["start"]["line"] + 1
    return f"{error['file']}:{line}: {error['message']} ({error.get('rule')})"


def is_public(file: pathlib.Path) -> bool:
    return HERE in file.parents or file.suffix == ".pyi"


def measure() -> tuple[dict[str, float], list[str]]:
    """Returns what the baseline holds, and the errors that users see."""
    errors = pyright(cwd=HERE.parents[1])["generalDiagnostics"]
    public = [describe(e) for e in errors if is_public(pathlib.Path(e["file"]))]
    with tempfile.TemporaryDirectory() as elsewhere:  # where kbptt is an installed package
        report = pyright("--verifytypes", "kbptt", "--ignoreexternal", cwd=pathlib.Path(elsewhere))
    public += [describe(error) for error in report["generalDiagnostics"]]
    known = 100 * report["typeCompleteness"]["completenessScore"]
    return {"errors": len(errors) - len(public), "known": round(known, 1)}, public


def main() -> None:
    now, public = measure()
    if public:
        sys.exit("\n".join(["Errors in what users write:", *public]))
    if "--write" in sys.argv:
        BASELINE.write_text(json.dumps(now) + "\n")
    before = json.loads(BASELINE.read_text())
    print(f"Types: {now['errors']} errors inside, {now['known']} % of the public types known.")
    if now["errors"] > before["errors"] or now["known"] < before["known"]:
        sys.exit(f"Worse than {before} in {BASELINE}. Run basedpyright to see the errors.")
    if now != before:
        print(f"Better than {before}: store it with python {sys.argv[0]} --write")
    subprocess.run([BIN / "mypy"], cwd=HERE.parents[1], check=True)


if __name__ == "__main__":
    main()
