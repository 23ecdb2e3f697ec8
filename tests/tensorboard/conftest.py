"""A browser and TensorBoard servers for the tests of the tab."""

import contextlib

import pytest
import tensorboard_server
from gradient_flow_tab import Tab


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser):
    browser.open("about:blank")  # ends what the last test began
    browser.problems.clear()
    yield browser
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    # No error, nothing blocked by the content security policy, no request to another host. (Below
    # a path prefix TensorBoard's own page does not find its fonts.)
    assert [problem for problem in browser.problems if "/font-roboto/" not in problem] == []


@pytest.fixture
def serve(tab):
    """Starts TensorBoard: `serve(logdir, *arguments)` is `(address, process)`.

    The page leaves a server before it stops: one that still asked it would log errors.
    """
    with contextlib.ExitStack() as servers:
        yield lambda *arguments, **options: servers.enter_context(
            tensorboard_server.serve(*arguments, **options)
        )
        tab.open("about:blank")
