/* The loops for one instruction set, for float and double (see native.c). */
#define TYPE float
#include "products.h"
#include "cells.h"
#include "loops.h"
#undef TYPE
#define TYPE double
#include "products.h"
#include "cells.h"
#include "loops.h"
#undef TYPE

#undef ISA
#undef VECTOR
#undef WIDE
