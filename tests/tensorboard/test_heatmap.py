"""Figures, by the pixels and lines they draw."""

import io
import pickle

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

import kbptt
from kbptt.tensorboard import heatmap


def mesh_colors(figure):
    """Colours `(timesteps, steps, 4)` of the heatmap's cells."""
    (mesh,) = [c for c in figure.axes[0].collections if hasattr(c, "get_coordinates")]
    return mesh.get_array()


def test_one_scale_in_log10_and_special_values_in_their_own_colors():
    norms = np.array([[1e-8, 1e-4, 1], [0, np.nan, np.inf]])
    figure = heatmap.heatmap_figure([10, 20], norms, "lstm")
    colors = mesh_colors(figure)
    low, middle, high = colors[:, 0]
    assert low[2] > low[1] and high[0] > high[2]  # viridis: dark violet to yellow
    assert tuple(middle[:3]) == pytest.approx((0.128, 0.567, 0.551), abs=0.01)  # its middle
    for color, expected in zip(
        colors[:, 1], (heatmap.ZERO_COLOR, heatmap.NAN_COLOR, heatmap.INF_COLOR), strict=True
    ):
        assert tuple(color) == pytest.approx(to_rgba(expected))
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["exactly 0", "NaN", "infinite"]
    axes, bar = figure.axes
    assert axes.get_xlabel() == "training step" and axes.get_ylabel() == "timestep t"
    assert bar.get_ylim() == pytest.approx((-8, 0))


def test_steps_are_placed_by_their_value():
    figure = heatmap.heatmap_figure([0, 10, 100], np.ones((3, 2)))
    assert figure.axes[0].get_xlim() == (-5, 145)
    assert not figure.legends


def test_shared_limits_give_equal_norms_equal_colors():
    one = heatmap.heatmap_figure([1], [[1e-2, 1e-3]], limits=(-6, 0))
    two = heatmap.heatmap_figure([1], [[1e-2, 1e-6]], limits=(-6, 0))
    np.testing.assert_array_equal(mesh_colors(one)[0], mesh_colors(two)[0])


def test_long_histories_are_reduced_before_drawing():
    norms = np.random.default_rng(0).random((700, 20_000), np.float32)
    norms[350, 12_345] = np.nan
    colors = mesh_colors(heatmap.heatmap_figure(np.arange(700), norms))
    assert colors.shape == (400, 400, 4)
    is_nan = np.all(np.isclose(colors, to_rgba(heatmap.NAN_COLOR)), axis=-1)
    assert is_nan.sum() == 1


@pytest.mark.parametrize("norms", [[[1.0]], [[0.0, 0.0]], [[np.nan]], np.full((3, 5), 1e-45)])
def test_degenerate_data_give_a_valid_png_and_no_warning(norms):
    steps = np.arange(len(norms))
    png, width, height = heatmap.to_png(
        heatmap.heatmap_figure(steps, norms, "$x_{ <script> 层", window=1)
    )
    assert Image.open(io.BytesIO(png)).size == (width, height)


def test_window_edges_are_drawn():
    figure = heatmap.heatmap_figure([1, 2], np.ones((2, 10)), window=4)
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == [1.5, 5.5]


def test_profiles_are_geometric_means_with_a_band():
    figure = heatmap.profile_figure({"$a": [[1e-4, 1.0], [1e-2, 1.0]], "b": [0.0, 2.0]})
    axes = figure.axes[0]
    curve = axes.lines[0]
    np.testing.assert_allclose(curve.get_ydata(), [1e-3, 1.0])
    assert axes.get_yscale() == "log"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["$a", "b"]
    (zeros,) = [line for line in axes.lines if line.get_marker() == "s"]
    assert zeros.get_xdata().tolist() == [0]
    heatmap.to_png(figure)


def test_relative_profiles_keep_their_shape():
    figure = heatmap.profile_figure({"a": [1.0, 4.0], "nan": [np.nan, 8.0]}, relative=True)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.25, 1.0])
    (cross,) = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert cross.get_xdata().tolist() == [0]


@pytest.mark.parametrize(
    "argument",
    [
        *({"window": window} for window in (0, -3, 2.5, "x", True)),
        {"align": "middle"},
        {"limits": (1, 0)},
        {"max_steps": 0},
        {"max_timesteps": 1.5},
    ],
)
def test_bad_arguments_are_named(argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}`"):
        heatmap.heatmap_figure([1, 2], np.ones((2, 9)), **argument)
    if name == "window":
        with pytest.raises(ValueError, match="`window`"):
            heatmap.profile_figure({"a": np.ones(9)}, **argument)


def test_shapes_are_checked():
    for steps, norms in (([1], np.ones((2, 3))), ([1], np.ones(3)), ([], np.ones((0, 3)))):
        with pytest.raises(ValueError, match="shape"):
            heatmap.heatmap_figure(steps, norms)


@pytest.mark.parametrize(
    "figure",
    [
        lambda: kbptt.tensorboard.heatmap_figure([1, 2], np.ones((2, 3)), "层"),
        lambda: kbptt.tensorboard.profile_figure({"a": [1.0, 2.0], "$b": [0.0, np.nan]}),
    ],
)
def test_a_notebook_shows_the_figure(figure):
    """What IPython's formatters ask an object of their own accord, without pyplot."""
    shown = figure()
    image = Image.open(io.BytesIO(shown._repr_png_()))
    width, height = image.size
    assert image.format == "PNG" and (width, height) == tuple(100 * shown.get_size_inches())
    assert len(image.convert("RGB").getcolors(maxcolors=10**6)) > 10
    assert shown._repr_html_() is None  # Matplotlib's own, for its interactive canvas
    copy = pickle.loads(pickle.dumps(shown))
    assert isinstance(copy, Figure) and copy._repr_png_() == shown._repr_png_()
