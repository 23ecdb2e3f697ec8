"""Private names of Keras, TensorFlow and TensorBoard: where they are used, and what they must do.

The fence modules name the release that each was checked on. A failure here says which name another
release has changed.
"""

import ast
import copy
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.data import grpc_provider

import kbptt
from kbptt import _fence, _keras, _tensorboard, _tensorflow

ROOT = Path(kbptt.__file__).parent
FENCES = {"_fence.py", "_keras.py", "_tensorflow.py", "_tensorboard.py"}
# Of named tuples, ctypes and Python's own modules: public in spite of the underscore.
PUBLIC = {"_asdict", "_exit", "_fields", "_fields_", "_replace"}
PRIVATE_MODULES = ("keras.src", "tensorflow.python", "tensorflow.compiler", "tensorflow.core")


def sources():
    found = {path.resolve(): path for path in [*ROOT.rglob("*.py")]}
    callbacks = Path(inspect.getfile(kbptt.callbacks)).parent
    found |= {path.resolve(): Path("callbacks", path.name) for path in callbacks.glob("*.py")}
    for path, name in found.items():
        if name.name not in FENCES:
            name = name.relative_to(ROOT) if name.is_absolute() else name
            yield name.as_posix(), ast.parse(path.read_text("utf-8"))


def names_defined(trees):
    """Names of functions, classes and assigned attributes and variables."""
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id
        elif isinstance(node, ast.keyword) and node.arg:  # vars(self).update(_name=...)
            yield node.arg


def private_uses(tree, ours, here, fenced=()):
    """Names of other packages that a module uses though they are private."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith(PRIVATE_MODULES))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PRIVATE_MODULES):
            yield node.module
        name, own = None, False
        if isinstance(node, ast.Attribute):
            name = node.attr
            # What a class says of itself may be defined in its bases, elsewhere in kbptt.
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            own = own or (isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()")
            own = own and name in ours
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        elif isinstance(node, ast.Constant) and node.value in fenced:
            name = node.value  # for `getattr` and the like
        if name == "__internal__" or (
            name and name.startswith("_") and not name.startswith("__") and name not in PUBLIC
            and not own and name not in here
        ):  # fmt: skip
            yield name


def test_private_names_of_other_packages_are_used_behind_the_fence_alone():
    trees = dict(sources())
    ours = set(names_defined(trees.values()))
    fenced = {
        node.value
        for file in FENCES
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
        if isinstance(node, ast.Constant) and re.fullmatch(r"_[a-z]\w+", str(node.value))
    }
    assert {"_flatten_layers", "_learning_rate", "_stub"} < fenced
    found = {
        (file, name)
        for file, tree in trees.items()
        for name in private_uses(tree, ours, set(names_defined([tree])), fenced)
    }
    assert found == set()


def test_the_check_finds_a_private_name():
    code = "import keras.src.backend\nmodel._flatten_layers()\ngetattr(x, '_y')\nself._ours\n"
    code += "self._theirs\nos._exit(0)\nsys._getframe()"
    found = set(private_uses(ast.parse(code), {"_ours"}, set()))
    assert found == {"keras.src.backend", "_y", "_flatten_layers", "_theirs", "_getframe"}


def test_kbptt_overrides_no_private_method_but_the_one_that_the_fence_names():
    found = set()
    for layer in (kbptt.LSTM, kbptt.GRU, kbptt.SimpleRNN, kbptt.RNN):
        ours = [kind for kind in layer.__mro__ if kind.__module__.startswith("kbptt")]
        foreign = [kind for kind in layer.__mro__ if kind not in ours]
        found |= {
            name
            for kind in ours
            for name in vars(kind)
            if name.startswith("_") and not name.startswith("__")
            and any(name in vars(other) for other in foreign)
        }  # fmt: skip
    assert found == {"_create_state_variables"}
    assert "_create_state_variables" in _keras.__doc__


def test_a_name_that_is_gone_is_an_error_that_says_what_to_do():
    fence = _fence.Fence("keras", checked="3.15.1")
    expected = rf"_gone of keras.*installed release {keras.__version__}.*keras==3\.15\.1"
    with pytest.raises(RuntimeError, match=f"Dense.{expected}"):
        fence.get(keras.layers.Dense(1), "_gone")
    with pytest.raises(ImportError, match=r"keras\.src\.gone.*pip install"), fence.importing():
        from keras.src.gone import anything  # noqa: F401
    with pytest.raises(ImportError, match=r"keras\.src\.backend.*pip install"), fence.importing():
        from keras.src.backend import gone  # noqa: F401


# Keras, checked on 3.15.1.


def test_flatten_layers_has_the_layers_inside_wrappers_and_in_layers_of_a_user():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.inner = [keras.layers.Dense(1, name="inner")]

        def call(self, x):
            return self.inner[0](x)

    both = keras.layers.Bidirectional(keras.layers.GRU(2, name="rnn"), name="both")
    model = keras.Sequential([keras.Input((3, 2)), both, Block()])
    found = _keras.flatten_layers(model)
    names = [layer.name for layer in found]
    assert names[0] == model.name and len(set(map(id, found))) == len(found)
    assert {"both", "forward_rnn", "backward_rnn", "block", "inner"} < set(names)


def test_inbound_nodes_begin_with_the_first_call():
    layer = keras.layers.GRU(2)
    first, second = keras.Input((3, 2)), keras.Input((3, 2))
    keras.Model([first, second], [layer(first), layer(second)])
    (found,) = _keras.first_inputs(layer)
    assert found is first


def test_manual_input_spec_is_what_the_setter_of_a_functional_model_keeps():
    model = keras.Model(inputs := keras.Input((3, 2)), keras.layers.Dense(1)(inputs))
    x = np.ones((1, 5, 2), "float32")
    with _keras.any_timesteps(model):
        assert model(x).shape == (1, 5, 1)
        with pytest.raises(ValueError, match="shape"):
            model(x[:, :, :1])
    assert model.input_spec[0].shape == (None, 3, 2) and "_manual_input_spec" not in vars(model)
    with pytest.raises(ValueError, match="shape"):
        model(x)


def test_name_scope_stack_ends_with_the_cell_that_is_built():
    seen = []

    def initializer(shape, dtype):
        seen.append(_keras.layer_being_built())
        return keras.ops.zeros(shape, dtype)

    cell = keras.layers.LSTMCell(2, bias_initializer=initializer)
    keras.layers.RNN([keras.layers.GRUCell(3), cell]).build((None, None, 2))
    assert len(seen) == 2 and all(layer is cell for layer in seen)
    assert _keras.layer_being_built() is None


def test_current_call_ctx_has_the_outermost_model():
    seen = []

    class Looks(keras.layers.Layer):
        def call(self, x):
            seen.append((_keras.entry_layer(), _keras.is_symbolic()))
            return x

    model = keras.Sequential([keras.Input((2,)), Looks()])
    seen.clear()
    model(np.ones((1, 2), "float32"))
    assert seen == [(model, False)] and _keras.entry_layer() is None


def test_in_stateless_scope_is_true_while_shapes_are_inferred():
    class Looks(keras.layers.Layer):
        seen = None

        def call(self, x):
            Looks.seen = _keras.is_symbolic()
            return x

    keras.Model(inputs := keras.Input((2,)), Looks()(inputs))
    assert Looks.seen is True and not _keras.is_symbolic()


def test_autocast_scope_casts_variables_and_can_be_left_and_entered_again():
    scopes, read = [], []

    class Looks(keras.layers.Layer):
        def build(self, shape):
            self.weight = self.add_weight()

        def call(self, x):
            scopes.append(_keras.autocast_scope())
            with _keras.autocast(None):
                read.append(keras.ops.convert_to_tensor(self.weight).dtype)
            read.append(keras.ops.convert_to_tensor(self.weight).dtype)
            return x

    layer = Looks(dtype="mixed_float16")
    layer(np.ones((1, 2), "float16"))
    with _keras.autocast(scopes[0]):
        read.append(keras.ops.convert_to_tensor(layer.weight).dtype)
    assert read == [tf.float32, tf.float16, tf.float16] and _keras.autocast_scope() is None


def test_dropout_masks_are_kept_on_the_cell_and_used_from_there():
    cell = keras.layers.SimpleRNNCell(2, dropout=0.5, recurrent_dropout=0.5)
    assert _keras.dropout_masks(cell) == [None, None]
    x, h = np.ones((1, 3), "float32"), np.ones((1, 2), "float32")
    masks = [cell.get_dropout_mask(x), cell.get_recurrent_dropout_mask(h)]
    assert all(a is b for a, b in zip(_keras.dropout_masks(cell), masks, strict=True))
    _keras.set_dropout_masks(cell, [x, h])
    assert cell.get_dropout_mask(x) is x and cell.get_recurrent_dropout_mask(h) is h
    # The cell multiplies by them.
    output, _ = cell(x, [h], training=True)
    plain, _ = cell(x, [h], training=False)
    np.testing.assert_array_equal(output, plain)
    _keras.set_dropout_masks(cell, [0 * x, h])
    assert np.any(cell(x, [h], training=True)[0] != plain)


def test_maybe_config_and_reset_dropout_masks_of_a_stack_of_cells():
    cells = [keras.layers.GRUCell(2, dropout=0.5), keras.layers.LSTMCell(3, recurrent_dropout=0.5)]
    layer = keras.layers.RNN(cells)
    layer.build((4, 5, 2))
    _keras.draw_dropout_masks(layer, np.ones((4, 2), "float32"), layer.get_initial_state(4))
    present = [[mask is not None for mask in _keras.dropout_masks(cell)] for cell in cells]
    assert present == [[True, False], [False, True]]
    _keras.clear_dropout_masks(layer)
    assert [_keras.dropout_masks(cell) for cell in cells] == [[None, None], [None, None]]


def test_variables_iterations_and_accumulated_gradients_of_an_optimizer():
    weights = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=3)
    optimizer.build(weights)
    assert all(a is b for a, b in zip(_keras.built_variables(optimizer), weights, strict=True))
    state = [vars(optimizer)[name] for name in _keras.OPTIMIZER_STATE]
    assert state[0] is optimizer.iterations or int(state[0].value) == 0
    assert float(state[1].value) == 1.0 and len(state[2]) == 2
    for gradient in (1.0, 5.0):
        optimizer.apply([tf.constant([gradient, 0.0]), tf.constant([gradient])])
    assert int(_keras.accumulated_batches(optimizer).value) == 2 and int(optimizer.iterations) == 0
    sums = [_keras.accumulated_gradient(optimizer, weight) for weight in reversed(weights)]
    assert [s.numpy().tolist() for s in sums] == [[6.0], [6.0, 0.0]]


def test_create_state_variables_makes_the_states_of_a_stateful_layer():
    made = []

    class Counts(keras.layers.GRU):
        def _create_state_variables(self, batch_size):
            made.append(batch_size)
            super()._create_state_variables(batch_size)

    Counts(2, stateful=True)(np.ones((4, 3, 2), "float32"))
    assert made == [4]


# TensorFlow, checked on 2.21.0.


def test_dynamic_update_slice_writes_one_slice_under_xla():
    @tf.function(jit_compile=True)
    def write(at):
        return _tensorflow.dynamic_update_slice(tf.zeros([3, 2]), tf.ones([1, 2]), [at, 0])

    assert write(tf.constant(1)).numpy().tolist() == [[0, 0], [1, 1], [0, 0]]


def test_graphs_of_functions_branches_and_loop_bodies_are_told_apart():
    seen = {}

    def look(name):
        graph = _tensorflow.traced_graph()
        kind = isinstance(graph, _tensorflow.FuncGraph)
        branch, body = _tensorflow.is_branch_or_body(graph), _tensorflow.is_body(graph)
        seen[name] = kind, branch, body, _tensorflow.is_being_compiled()
        return tf.constant(1)

    @tf.function
    def run(x):
        look("function")
        tf.cond(x > 0, lambda: look("branch"), lambda: tf.constant(0))
        tf.while_loop(lambda i: i < 1, lambda i: [i + look("body")], [0])

    run(tf.constant(1))
    tf.function(lambda: look("compiled"), jit_compile=True)()
    assert _tensorflow.traced_graph() is None and not _tensorflow.is_being_compiled()
    assert seen == {
        "function": (True, False, False, False),
        "branch": (True, True, False, False),
        "body": (True, True, True, False),
        "compiled": (True, False, False, True),
    }


def test_in_save_context_while_a_saved_model_is_traced(tmp_path):
    seen = []

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
        def run(self, x):
            seen.append(_tensorflow.is_being_exported())
            return x

    module = Module()
    module.run(tf.constant(1.0))
    tf.saved_model.save(module, str(tmp_path))
    assert seen[0] is False


def test_replicas_merge_under_mirrored_strategy_only():
    assert not _tensorflow.replicas_merge()
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert isinstance(_tensorflow.replicas_merge(), bool)


# TensorBoard, checked on 2.21.0.


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (MultiplexerDataProvider, lambda source: MultiplexerDataProvider(source, "logdir")),
        (
            grpc_provider.GrpcDataProvider,
            lambda source: grpc_provider.GrpcDataProvider("nowhere", source),
        ),
    ],
)
def test_a_provider_reads_from_the_source_that_replaces_its_own(kind, make):
    class Source:
        def __getattr__(self, name):
            raise LookupError(name)

    class Wrapped:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            raise LookupError(f"wrapped {name}")

    def list_runs(data):
        return data.list_runs(context.RequestContext(), experiment_id="")

    data = make(Source())
    with pytest.raises(LookupError, match="wrapped"):
        list_runs(_tensorboard.replace_source(data, {kind: Wrapped}))
    with pytest.raises(LookupError, match=r"^(?!wrapped)"):
        list_runs(data)
    gone = copy.copy(data)
    vars(gone).clear()
    expected = r"kbptt needs the private name .* of tensorboard.* installed release 2"
    with pytest.raises(RuntimeError, match=expected):
        _tensorboard.replace_source(gone, {kind: Wrapped})
