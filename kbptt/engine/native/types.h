/* The loops for one instruction set, for float and double (see native.c). */
#define TYPE float
#define DIGITS 24 /* of the significand */
#include "activations.h"
#include "products.h"
#include "cells.h"
#include "loops.h"
#include "backward.h"
#undef TYPE
#undef DIGITS
#define TYPE double
#define DIGITS 53
#include "activations.h"
#include "products.h"
#include "cells.h"
#include "loops.h"
#include "backward.h"
#undef TYPE
#undef DIGITS

#undef ISA
#undef VECTOR
#undef WIDE
