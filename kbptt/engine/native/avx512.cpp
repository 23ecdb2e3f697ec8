/* The loops for AVX-512. */
#include "portable.hpp"

#ifdef KBPTT_AVX
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#include "loops.hpp"

namespace kbptt {
namespace {
struct Avx512 {
    static constexpr int vector_bytes = 64, tile_vectors = 4;
};
}  // namespace

const Passes KBPTT_LOOPS(avx512) = loops_of<Number, Avx512>;

}  // namespace kbptt
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
