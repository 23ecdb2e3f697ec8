from . import policies as policies, windows as windows
from .policies import (
    AnticipatedReweighted as AnticipatedReweighted,
    Full as Full,
    Randomized as Randomized,
    SnAp as SnAp,
    Truncation as Truncation,
    Windowed as Windowed,
    get as get,
    serialize as serialize,
)
