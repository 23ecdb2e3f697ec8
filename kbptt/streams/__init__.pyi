from .inference import evaluate_stream as evaluate_stream, predict_stream as predict_stream
from .stepper import Stepper as Stepper, streaming as streaming
