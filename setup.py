"""The compiled loops, the one thing that setup.cfg cannot describe."""

import os

from setuptools import Extension, setup

if not os.path.isdir("kbptt/callbacks"):
    raise SystemExit(
        "kbptt/callbacks is a symbolic link to the folder callbacks, and this checkout has a file "
        "in its place. Check it out again with links (on Windows, turn on developer mode first): "
        "git config core.symlinks true && git checkout -- kbptt/callbacks"
    )

HEADERS = ("problem", "targets", "types", "activations", "products", "cells", "loops", "backward")

setup(
    ext_modules=[
        Extension(
            "kbptt.engine._native",
            ["kbptt/engine/native/native.c"],
            depends=[f"kbptt/engine/native/{name}.h" for name in HEADERS],
            # No -march: the file holds the loops for several instruction sets and picks one when it
            # runs. NaN and Inf keep their meaning, so no -ffast-math.
            extra_compile_args=[
                "-O3",
                "-std=gnu11",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-ffp-contract=fast",
                # Both would turn a clamp into branches with parts of the loop in each.
                "-fno-tree-pre",
                "-fno-thread-jumps",
            ],
            # Without a C compiler kbptt installs all the same and runs its loops with XLA.
            optional=True,
        )
    ]
)
