"""The methods that an ablation can compare: declarative entries, combined with "+".

An entry describes what a method adds to the baseline: arguments of the recurrent layers, callbacks,
arguments of the optimizer. It is plain data (names, numbers, and references to objects by import
path), so it can be hashed, stored and sent to a different machine, and importing this module
imports neither Keras nor TensorFlow.

```python
from kbptt import methods

methods.register(
    methods.Method(
        "clip_tight",
        "clip the global norm at 0.1",
        callbacks=(methods.ref("kbptt.callbacks:ClipByGlobalNorm", threshold=0.1),),
    )
)
methods.get("orthogonal+clip_tight")
```
"""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
