/* baseline.cpp for double, apart from float: a compiler works on both at the same time. */
#define KBPTT_DOUBLE
#include "baseline.cpp"
