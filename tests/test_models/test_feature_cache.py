"""Features by the content of their image: values, order, limits."""

import pytest
import torch

from mmmask3d.models.feature_cache import FeatureCache


class Network:
    """Two features of an image; counts the images it has seen."""

    seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return [images.flatten(1) * 3.3, images.mean((1, 2, 3))]


def images(*seeds):
    return torch.stack(
        [torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(i)) for i in seeds]
    )


def test_found_and_made_features_are_the_same_in_the_order_asked_for():
    network, cache = Network(), FeatureCache(1)
    cache(images(1, 2), network)
    batch = images(3, 2, 3, 1)
    found = cache(batch, network)
    assert network.seen == 3
    expected = Network()(batch)
    for made, value in zip(found, expected, strict=True):
        assert made.dtype == torch.float32
        assert torch.equal(made, value.half().float())
    assert torch.equal(FeatureCache(1)(batch, network)[0], found[0])


def test_images_are_told_apart_by_their_values():
    network, cache = Network(), FeatureCache(1)
    first = images(0)
    flipped, nearly = first.flip(-1), first.clone()
    nearly[0, 2, 3, 3] += 1e-6
    for batch in (first, flipped, nearly, first.reshape(1, 3, 2, 8)):
        assert torch.equal(cache(batch, network)[0], network(batch)[0].half().float())
    assert network.seen == 8


def test_a_full_cache_computes_and_says_once_that_nothing_comes_again(monkeypatch):
    warnings = []
    monkeypatch.setattr(
        'mmmask3d.models.feature_cache.print_log', lambda message, *_: warnings.append(message)
    )
    network = Network()
    cache = FeatureCache((2 * 48 + 2) * 2.5 / 2**30)  # two images of 49 numbers
    for seed in range(5):
        value = cache(images(seed), network)[0]
        assert torch.equal(value, network(images(seed))[0].half().float())
    assert len(warnings) == 1
    assert 'no image came twice' in warnings[0]
    seen = network.seen
    cache(images(0, 1), network)
    assert network.seen == seen
    cache(images(4), network)
    assert network.seen == seen + 1


def test_a_feature_that_16_bits_do_not_hold_is_refused():
    with pytest.raises(OverflowError, match='cache_gib=0'):
        FeatureCache(1)(images(0), lambda x: [x.flatten(1) * 1e6])
