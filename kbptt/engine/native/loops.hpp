/* Both passes of every cell for one instruction set. */
#pragma once
#include "backward.hpp"
#include "dispatch.hpp"
#include "forward.hpp"

namespace kbptt {
namespace {

/* The memory of a team: what its threads share, then each one's own. */
template <class Pass, class T> int64_t scratch(const void *problem, int64_t rows) {
    const auto &p = *static_cast<const Problem<T> *>(problem);
    int64_t bytes = Pass(p, 0, 0, rows).lay_out_shared(nullptr);
    for (int64_t i = 0; i < p.members; i++) bytes += Pass(p, i, 0, rows).lay_out(nullptr);
    return bytes;
}

template <class Pass, class T> int64_t group(const void *problem, int64_t rows) {
    return Pass(*static_cast<const Problem<T> *>(problem), 0, 0, rows).rows_at_once();
}

template <class Pass, class T>
void run(const void *problem, int64_t thread, int64_t first, int64_t last) {
    const auto &p = *static_cast<const Problem<T> *>(problem);
    Pass pass(p, thread, first, last);
    char *memory = p.scratch + p.team_scratch * (thread / p.members);
    memory += pass.lay_out_shared(memory);
    for (int64_t i = thread - thread % p.members; i < thread; i++)
        memory += Pass(p, i, first, last).lay_out(nullptr);
    pass.lay_out(memory);
    pass.run();
}

template <class T, class F, class B>
constexpr Passes both = {run<F, T>,     run<B, T>,   scratch<F, T>,
                         scratch<B, T>, group<F, T>, group<B, T>};

template <class T, class Isa, class Cell, bool normalized>
constexpr Passes passes =
    both<T, Forward<T, Isa, Cell, normalized>, Backward<T, Isa, Cell, normalized>>;

template <class Isa, class Cells> struct Loops;
template <class Isa, class... Cell> struct Loops<Isa, List<Cell...>> {
    static constexpr CellPasses table[] = {
        {{passes<float, Isa, Cell, false>, passes<double, Isa, Cell, false>},
         {passes<float, Isa, Cell, true>, passes<double, Isa, Cell, true>}}...};
};

}  // namespace
}  // namespace kbptt
