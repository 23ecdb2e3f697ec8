/* The loops for what every machine has: SSE2 with 16 registers, NEON with 32. */
#include "loops.hpp"

namespace kbptt {
namespace {
struct Baseline {
#ifdef __aarch64__
    static constexpr int vector_bytes = 16, tile_vectors = 4;
#else
    static constexpr int vector_bytes = 16, tile_vectors = 2;
#endif
};
}  // namespace

const Passes KBPTT_LOOPS(baseline) = loops_of<Number, Baseline>;

}  // namespace kbptt
