from .known import BASE_LAYER as BASE_LAYER
from .method import Method as Method, find as find, make as make, ref as ref
from .registry import get as get, names as names, register as register, registered as registered
