#include "dispatch.hpp"
#include "portable.hpp"

namespace kbptt {

const InstructionSet instruction_sets[] = {
    {"baseline", baseline_loops},
#ifdef KBPTT_AVX
    {"avx2", avx2_loops},
    {"avx512", avx512_loops},
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
