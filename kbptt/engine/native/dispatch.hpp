/* Backpropagation through time on a CPU: the passes, and which of them a machine can run.

   No Python, no TensorFlow: module.cpp calls it. The caller splits the rows of the batch over teams
   of threads (team.hpp), all of which have to run at the same time. */
#pragma once
#include <cstdint>

namespace kbptt {

/* One pass of one thread over the rows of its team. */
using Pass = void (*)(const void *problem, int64_t thread, int64_t first, int64_t last);

/* For a team of at most `rows` rows: bytes of scratch space, or rows of a group. */
using Size = int64_t (*)(const void *problem, int64_t rows);

struct Passes {
    Pass forward, backward;
    Size forward_scratch, backward_scratch, forward_group, backward_group;
};

/* A translation unit each. */
extern const Passes baseline_floats, baseline_doubles, avx2_floats, avx2_doubles, avx512_floats,
    avx512_doubles;

struct InstructionSet {
    const char *name;
    const Passes *loops[2]; /* of floats, of doubles */
};

/* From the baseline to the best; the first `instruction_set_count()` are what this machine has. */
extern const InstructionSet instruction_sets[];
int instruction_set_count();

}  // namespace kbptt
