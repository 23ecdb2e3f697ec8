/* Both passes of every cell for one instruction set and one type of numbers. */
#pragma once
#include "backward.hpp"
#include "dispatch.hpp"
#include "forward.hpp"

/* The type of a translation unit, and what its loops are called in dispatch.hpp. */
#ifdef KBPTT_DOUBLE
#define KBPTT_LOOPS(instruction_set) instruction_set##_doubles
#else
#define KBPTT_LOOPS(instruction_set) instruction_set##_floats
#endif

namespace kbptt {
namespace {

#ifdef KBPTT_DOUBLE
using Number = double;
#else
using Number = float;
#endif

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

template <class T, class Isa> constexpr Passes loops_of = both<T, Forward<T, Isa>, Backward<T, Isa>>;

}  // namespace
}  // namespace kbptt
