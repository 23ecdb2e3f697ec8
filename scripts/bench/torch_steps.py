"""Training steps in PyTorch."""

# An optional peer: the types are checked with it or without.
# pyright: reportMissingImports=false

from collections.abc import Callable

from .cores import cores
from .sizes import Size
from .stream_steps import torch_epoch


def make(options: dict[str, str], cell: str, size: Size) -> Callable[[], object]:
    """Forward, backward, Adam.

    Args:
        options: `detach`: chunk by chunk, the state detached in between, one update for the
            sequence. `time-major`: `batch_first=False`, with data laid out like that. `stateful`:
            an epoch of `stream_steps` in place of a step.
        cell: "SimpleRNN", "GRU" or "LSTM".
        size: The model and its batch.
    """
    import torch

    torch.set_num_threads(cores())
    torch.manual_seed(0)
    major = "time-major" in options
    kind = {"SimpleRNN": torch.nn.RNN, "GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}[cell]
    rnn = kind(
        size.features,
        size.units,
        num_layers=size.layers,
        bidirectional=size.bidirectional,
        batch_first=not major,
    )
    head = torch.nn.Linear(size.directions * size.units, size.outputs)
    embedding = torch.nn.Embedding(size.words, size.features) if size.words else torch.nn.Identity()
    if size.one_hot:
        embedding = torch.nn.Embedding.from_pretrained(torch.eye(size.words))
    modules = torch.nn.ModuleList([embedding, rnn, head])
    optimizer = torch.optim.Adam(modules.parameters())
    shape = (size.timesteps, size.batch) if major else (size.batch, size.timesteps)
    if size.words:
        x, y = torch.randint(size.words, shape), torch.randint(size.words, shape)
    else:
        x = torch.randn(*shape, size.features)
        y = torch.randn(size.batch, 1) if size.last else torch.randn(*shape, 1)

    def loss(output, y_part):
        if size.words:
            logits = head(output).flatten(0, 1)
            return torch.nn.functional.cross_entropy(logits, y_part.flatten(), reduction="sum")
        return ((head(output) - y_part) ** 2).sum()

    def detached(state):
        return tuple(s.detach() for s in state) if cell == "LSTM" else state.detach()

    def forward(x, state):
        output, state = rnn(embedding(x), state)
        return output, detached(state)

    if "stateful" in options:
        return torch_epoch(size, major, forward, lambda o, y: loss(o, y).div(y.numel()), optimizer)
    length = size.window if "detach" in options else size.timesteps
    carried = None

    def step():
        nonlocal carried
        optimizer.zero_grad()
        state = carried
        for start in range(0, size.timesteps, length):
            part = slice(start, start + length)
            at = part if major else (slice(None), part)
            ends = start + length >= size.timesteps
            with torch.set_grad_enabled(ends or not size.last):
                output, state = forward(x[at], state)
            if ends and size.last:
                loss(output[-1] if major else output[:, -1], y).div(y.numel()).backward()
            elif not size.last:
                loss(output, y[at]).div(y.numel()).backward()
        optimizer.step()
        carried = state if size.stateful else None

    step()
    return step
