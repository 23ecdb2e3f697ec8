# Keras declares no types, and those inferred for its operations (a tensor or None) are wrong.
from typing import Any

def __getattr__(name: str) -> Any: ...
