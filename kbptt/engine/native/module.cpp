/* The extension module kbptt.engine.native._loops: what Python sees of dispatch.hpp. Its functions are
   described by `Loops` in library.py. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "cells.hpp"
#include "dispatch.hpp"

namespace kbptt {
namespace {

/* The passes for a problem; null, with an exception: its numbers are out of range. */
const Passes *find_passes(const Problem<double> &p, int is_double) {
    const struct {
        const char *name;
        int64_t value, first, count;
    } numbers[] = {
        {"cell", p.cell, 0, Cells::count},
        {"activation", p.activation, 0, Activations::count},
        {"recurrent_activation", p.recurrent_activation, 0, Activations::count},
        {"instruction_set", p.instruction_set, -1, instruction_set_count()},
        {"members", p.members, 1, 1 << 16},
    };
    for (const auto &n : numbers)
        if (n.value < n.first || n.value >= n.count) {
            PyErr_Format(PyExc_ValueError, "Expected `%s` from %lld to %lld. Received: %lld.", n.name,
                         (long long)n.first, (long long)n.count - 1, (long long)n.value);
            return nullptr;
        }
    const int64_t best = instruction_set_count() - 1;
    const int64_t set = p.instruction_set < 0 ? best : p.instruction_set;
    return instruction_sets[set].loops[is_double != 0];
}

PyObject *run(PyObject *arguments, bool backward) {
    unsigned long long address;
    long long thread, first, last;
    int is_double;
    if (!PyArg_ParseTuple(arguments, "KpLLL", &address, &is_double, &thread, &first, &last))
        return nullptr;
    const void *problem = reinterpret_cast<const void *>(uintptr_t(address));
    /* The numbers stand at the same places whatever the type of the arrays. */
    const Passes *passes = find_passes(*static_cast<const Problem<double> *>(problem), is_double);
    if (!passes) return nullptr;
    Py_BEGIN_ALLOW_THREADS;
    (backward ? passes->backward : passes->forward)(problem, thread, first, last);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

/* Calls the forward or backward variant of a `Size` function. */
PyObject *size(PyObject *arguments, Size Passes::*forward, Size Passes::*backward) {
    unsigned long long address;
    long long rows;
    int is_double, is_backward;
    if (!PyArg_ParseTuple(arguments, "KppL", &address, &is_double, &is_backward, &rows)) return nullptr;
    const void *problem = reinterpret_cast<const void *>(uintptr_t(address));
    const Passes *passes = find_passes(*static_cast<const Problem<double> *>(problem), is_double);
    if (!passes) return nullptr;
    return PyLong_FromLongLong((passes->*(is_backward ? backward : forward))(problem, rows));
}

PyObject *scratch(PyObject *, PyObject *arguments) {
    return size(arguments, &Passes::forward_scratch, &Passes::backward_scratch);
}

PyObject *group(PyObject *, PyObject *arguments) {
    return size(arguments, &Passes::forward_group, &Passes::backward_group);
}

PyObject *forward(PyObject *, PyObject *arguments) { return run(arguments, false); }
PyObject *backward(PyObject *, PyObject *arguments) { return run(arguments, true); }

PyObject *problem(PyObject *, PyObject *) {
    return Py_BuildValue("(ns)", Py_ssize_t(sizeof(Problem<double>)), problem_declaration);
}

/* [item(0), …] */
template <class Item> PyObject *listed(int count, Item item) {
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < count; i++) {
        PyObject *object = item(i);
        if (!object || PyList_Append(list, object) < 0) Py_CLEAR(list);
        Py_XDECREF(object);
    }
    return list;
}

PyObject *cells(PyObject *, PyObject *) {
    return listed(Cells::count, [](int i) {
        const CellInfo &c = Cells::info[i];
        return Py_BuildValue("(siii)", c.name, c.gates, c.states, c.residuals);
    });
}

PyObject *activations(PyObject *, PyObject *) {
    return listed(Activations::count, [](int i) {
        return Py_BuildValue("(si)", Activations::names[i], int(Activations::keeps_argument[i]));
    });
}

PyObject *list_instruction_sets(PyObject *, PyObject *) {
    return listed(instruction_set_count(),
                  [](int i) { return PyUnicode_FromString(instruction_sets[i].name); });
}

PyMethodDef methods[] = {
    {"forward", forward, METH_VARARGS, "forward(problem, is_double, thread, first, last)"},
    {"backward", backward, METH_VARARGS, "backward(problem, is_double, thread, first, last)"},
    {"scratch", scratch, METH_VARARGS, "scratch(problem, is_double, backward, rows) -> bytes of a team"},
    {"group", group, METH_VARARGS, "group(problem, is_double, backward, rows) -> rows at once"},
    {"problem", problem, METH_NOARGS, "problem() -> (size, declaration)"},
    {"cells", cells, METH_NOARGS, "cells() -> [(name, gates, states, residuals), …]"},
    {"activations", activations, METH_NOARGS, "activations() -> [(name, keeps_argument), …]"},
    {"instruction_sets", list_instruction_sets, METH_NOARGS, "instruction_sets() -> names"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef_Slot slots[] = {{0, nullptr}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "kbptt.engine.native._loops",
                          "Backpropagation through time on a CPU.", 0, methods, slots, nullptr,
                          nullptr, nullptr};

}  // namespace
}  // namespace kbptt

PyMODINIT_FUNC PyInit__loops() { return PyModuleDef_Init(&kbptt::definition); }
