/* The cells that have compiled loops: the only list of them. Python numbers them in this order. */
#pragma once
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "cells/simple_rnn.hpp"

namespace kbptt {
namespace {

struct CellInfo {
    const char *name;
    int gates, states, residuals;
};

template <class... Cell> struct List {
    static constexpr int count = sizeof...(Cell);
    static constexpr CellInfo info[] = {{Cell::name, Cell::gates, Cell::states, Cell::residuals}...};
};

using Cells = List<SimpleRNN, GRU, LSTM>;

}  // namespace
}  // namespace kbptt
