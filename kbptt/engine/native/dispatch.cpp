#include "dispatch.hpp"
#include "portable.hpp"

namespace kbptt {

const InstructionSet instruction_sets[] = {
    {"baseline", {&baseline_floats, &baseline_doubles}},
#ifdef KBPTT_AVX
    {"avx2", {&avx2_floats, &avx2_doubles}},
    {"avx512", {&avx512_floats, &avx512_doubles}},
#endif
};

int instruction_set_count() {
#ifdef KBPTT_AVX
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 1;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    return avx512 ? 3 : 2;
#else
    return 1;
#endif
}

}  // namespace kbptt
