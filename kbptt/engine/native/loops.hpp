/* Both passes of every cell for one instruction set. */
#pragma once
#include "backward.hpp"
#include "dispatch.hpp"
#include "forward.hpp"

namespace kbptt {
namespace {

template <class Pass, class T>
bool run(const void *problem, int64_t thread, int64_t first, int64_t last) {
    return Pass(*static_cast<const Problem<T> *>(problem), thread, first, last).run();
}

template <class T, class Isa, class Cell, bool normalized>
constexpr Passes passes = {run<Forward<T, Isa, Cell, normalized>, T>,
                           run<Backward<T, Isa, Cell, normalized>, T>};

template <class Isa, class Cells> struct Loops;
template <class Isa, class... Cell> struct Loops<Isa, List<Cell...>> {
    static constexpr CellPasses table[] = {
        {{passes<float, Isa, Cell, false>, passes<double, Isa, Cell, false>},
         {passes<float, Isa, Cell, true>, passes<double, Isa, Cell, true>}}...};
};

}  // namespace
}  // namespace kbptt
