import threading
import time

import numpy as np
import pytest

from unfreeze.models.images.pixels.decode import UnreadableImage
from unfreeze.models.images.serving.predictor import BATCHES_AHEAD, stream


def decode(image):
    """An image is its number, as text; anything else cannot be read."""
    if not image.isdigit():
        raise UnreadableImage("not an image")
    return np.full((2, 2), int(image), np.uint8)


def double(batch, positions):
    return np.stack([batch[:, 0, 0].astype(float) * 2, positions.astype(float)], axis=1)


IMAGES = ["0", "1", "broken", "3", "4", "5", "6", "bad", "also bad", "9", "10"]


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("overlap", [True, False])
def test_every_image_comes_once_in_order_with_its_result_or_its_reason(chunk, batch_size, overlap):
    chunks = list(stream(IMAGES, decode, double, batch_size, chunk, overlap=overlap, threads=3))
    assert len(chunks) == -(-len(IMAGES) // chunk)
    results = {
        position: row
        for each in chunks
        for position, row in zip(each.positions.tolist(), each.results.tolist(), strict=True)
    }
    assert results == {number: [2.0 * number, float(number)] for number in (0, 1, 3, 4, 5, 6, 9, 10)}
    reasons = {position: reason for each in chunks for position, reason in each.unreadable.items()}
    assert reasons == dict.fromkeys((2, 7, 8), "not an image")
    for number, each in enumerate(chunks):
        assert all(
            number * chunk <= position < (number + 1) * chunk for position in [*each.positions, *each.unreadable]
        )


def test_batches_end_with_their_chunk():
    sizes = []
    compute = lambda batch, positions: sizes.append(len(batch)) or double(batch, positions)  # noqa: E731
    list(stream([str(number) for number in range(10)], decode, compute, batch_size=4, chunk=5))
    assert sizes == [4, 1, 4, 1]


def test_a_stream_that_starts_later_gives_what_is_left():
    whole, rest = (list(stream(IMAGES, decode, double, 2, 3, start)) for start in (0, 6))
    for one, other in zip(whole[2:], rest, strict=True):
        assert one.positions.tolist() == other.positions.tolist()
        assert one.unreadable == other.unreadable
        np.testing.assert_array_equal(one.results, other.results)


@pytest.mark.parametrize("overlap", [True, False])
def test_images_are_decoded_only_a_few_batches_ahead_and_during_a_computation_only_if_they_may(overlap):
    decoded, meanwhile, seen, lock = 0, [], [], threading.Lock()

    def counted(image):
        nonlocal decoded
        with lock:
            decoded += 1
        return decode(image)

    def slow(batch, positions):
        before = decoded
        time.sleep(0.02)
        meanwhile.append(decoded - before)
        seen.append((decoded, int(positions[-1]) + 1))
        return double(batch, positions)

    batch_size = 4
    list(stream([str(number % 200) for number in range(100)], counted, slow, batch_size, chunk=20, overlap=overlap))
    ahead = [done - taken for done, taken in seen]
    assert max(ahead) >= batch_size
    assert max(ahead) <= BATCHES_AHEAD * batch_size
    assert (sum(meanwhile) > 0) == overlap


def test_a_stream_that_is_not_read_to_its_end_stops_decoding():
    decoded = []

    def noted(image):
        decoded.append(image)
        return decode(image)

    chunks = stream([str(number % 200) for number in range(1000)], noted, double, 2, 4, threads=2)
    next(chunks)
    chunks.close()
    done = len(decoded)
    time.sleep(0.05)
    assert len(decoded) == done < 100


def test_an_error_of_the_computation_is_not_taken_for_an_image_s():
    def fails(batch, positions):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(stream(IMAGES, decode, fails, 2, 3))


def test_no_images_give_no_chunks():
    assert list(stream([], decode, double, 2, 3)) == []
