/* The functions of one instruction set, for float and double (see accuracy.c). */
#define TYPE float
#define WIDER double
#define DIGITS 24
#include "accuracy_of.h"
#undef TYPE
#undef WIDER
#undef DIGITS
#define TYPE double
#define WIDER long double
#define DIGITS 53
#include "accuracy_of.h"
#undef TYPE
#undef WIDER
#undef DIGITS

#undef ISA
#undef VECTOR
#undef WIDE
