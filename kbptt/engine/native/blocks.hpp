/* How much is worked on at once. Speed depends on these sizes, and results but by rounding.
   `scripts/benchmark.py --suite blocks` compiles the loops with others, by macros, and measures them;
   the table in docs/speed.md is what it found. */
#pragma once
#include <cstdint>

/* At most so many rows go through time together. */
#ifndef KBPTT_GROUP
#define KBPTT_GROUP 96
#endif
/* So many bytes at most of what a group works on: the second-level cache has room for them. */
#ifndef KBPTT_GROUP_BYTES
#define KBPTT_GROUP_BYTES (1 << 18)
#endif
/* A product outside of the recurrence takes so many rows at once. */
#ifndef KBPTT_BATCHED
#define KBPTT_BATCHED 384
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

constexpr int64_t GROUP = KBPTT_GROUP, GROUP_BYTES = KBPTT_GROUP_BYTES, BATCHED = KBPTT_BATCHED,
                  DEPTH = KBPTT_DEPTH, NEAR = KBPTT_NEAR;

inline int64_t between(int64_t least, int64_t n, int64_t most) {
    return n < least ? least : n > most ? most : n;
}

/* Into how many rows at a time `rows` are divided, `most` at most: of 100 rows 50 and 50, not 96 and
   4. */
inline int64_t evenly(int64_t rows, int64_t most) {
    const int64_t parts = rows > 0 ? (rows + most - 1) / most : 1;
    return (rows + parts - 1) / parts;
}

/* Rows of a group, of which each has so many bytes; `least` if they are wide: below, a kernel is
   read for too few of them. */
inline int64_t rows_of_group(int64_t least, int64_t bytes) {
    return between(least < GROUP ? least : GROUP, GROUP_BYTES / bytes, GROUP);
}

}  // namespace
}  // namespace kbptt
