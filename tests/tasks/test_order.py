import numpy as np

from kbptt import tasks


def order(seed, epochs, first_epoch=0):
    data = (np.arange(10), np.arange(10) ** 2)
    read = list(tasks.batches(data, 4, seed, epochs, first_epoch))
    assert all((x.numpy() ** 2 == y.numpy()).all() for x, y in read)
    return [x.numpy().tolist() for x, _ in read]


def test_batches_are_shuffled_by_seed_and_epoch():
    whole = order(0, 3)
    assert [len(batch) for batch in whole] == [4, 4, 2] * 3
    epochs = [[i for batch in whole[a : a + 3] for i in batch] for a in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order(1, 3) != whole


def test_a_training_that_starts_again_sees_the_same_batches():
    assert order(0, 3, first_epoch=1) == order(0, 3)[3:]
