/* How much is worked on at once: results change only by rounding. `scripts/benchmark.py --suite blocks`
   compiles the loops with other sizes, by macros, and measures them; see docs/speed.md. */
#pragma once
#include <cstdint>

/* Maximum number of rows that go through time together. */
#ifndef KBPTT_GROUP
#define KBPTT_GROUP 96
#endif
/* Maximum of the bytes that a group works on: the second-level cache has room for them. */
#ifndef KBPTT_GROUP_BYTES
#define KBPTT_GROUP_BYTES (1 << 18)
#endif
/* Minimum number of rows of a group, however wide, forward and backward. */
#ifndef KBPTT_LEAST_FORWARD
#define KBPTT_LEAST_FORWARD 64
#endif
#ifndef KBPTT_LEAST_BACKWARD
#define KBPTT_LEAST_BACKWARD 48
#endif
/* Maximum number of rows of a product outside of the recurrence, and of the bytes of their gates. */
#ifndef KBPTT_BATCHED
#define KBPTT_BATCHED 384
#endif
#ifndef KBPTT_BATCHED_BYTES
#define KBPTT_BATCHED_BYTES (3 << 17)
#endif
/* Rows of the right factor that a product takes at once: a panel of so many stays in the first-level
   cache while all rows of the left factor go over it. */
#ifndef KBPTT_DEPTH
#define KBPTT_DEPTH 256
#endif
/* Bytes of a packed factor that stays near by itself; of a larger one the next panel is prefetched. */
#ifndef KBPTT_NEAR
#define KBPTT_NEAR (1 << 17)
#endif

namespace kbptt {
namespace {

constexpr int64_t GROUP = KBPTT_GROUP, GROUP_BYTES = KBPTT_GROUP_BYTES,
                  LEAST_FORWARD = KBPTT_LEAST_FORWARD, LEAST_BACKWARD = KBPTT_LEAST_BACKWARD,
                  BATCHED = KBPTT_BATCHED, BATCHED_BYTES = KBPTT_BATCHED_BYTES,
                  DEPTH = KBPTT_DEPTH, NEAR = KBPTT_NEAR;

/* Two groups at least are buffered for the products outside of the recurrence. */
static_assert(GROUP > 0 && BATCHED >= 2 * GROUP, "a buffer is too small");

inline int64_t between(int64_t least, int64_t n, int64_t most) {
    return n < least ? least : n > most ? most : n;
}

/* Into how many rows at a time `rows` are divided, `most` at most: of 100 rows 50 and 50, not 96 and
   4. */
inline int64_t evenly(int64_t rows, int64_t most) {
    const int64_t parts = rows > 0 ? (rows + most - 1) / most : 1;
    return (rows + parts - 1) / parts;
}

/* Rows of a group, given the bytes of a row. */
inline int64_t rows_of_group(int64_t least, int64_t bytes) {
    return between(least < GROUP ? least : GROUP, GROUP_BYTES / bytes, GROUP);
}

}  // namespace
}  // namespace kbptt
