class Stepper: pass
def streaming(model): raise NotImplementedError
