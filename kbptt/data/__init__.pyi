from .streams import Streams as Streams
