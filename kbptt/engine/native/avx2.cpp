/* The loops for AVX2. */
#include "portable.hpp"

#ifdef KBPTT_AVX
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include "loops.hpp"

namespace kbptt {
namespace {
struct Avx2 {
    static constexpr int vector_bytes = 32, tile_vectors = 2;
};
}  // namespace

const Passes KBPTT_LOOPS(avx2) = loops_of<Number, Avx2>;

}  // namespace kbptt
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
