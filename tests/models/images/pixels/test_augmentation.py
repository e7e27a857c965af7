import math
from collections import Counter

import pytest
import torch
from hypothesis import given, strategies as st
from scipy.stats import ks_2samp

from unfreeze.models.images.pixels.augmentation import COLUMNS, apply_views, draw_views, numbered_view, plain_views
from unfreeze.models.settings import AugmentSpec

HASHES = [f"{number:032x}" for number in range(3000)]
IMAGES = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def views(count: int = len(IMAGES), **changes: float | torch.Tensor) -> torch.Tensor:
    """Plain views but for the columns named."""
    made = plain_views(count)
    for name, value in changes.items():
        made[:, COLUMNS.index(name)] = torch.as_tensor(value, dtype=torch.float32)
    return made


def column(draws: torch.Tensor, name: str) -> torch.Tensor:
    return draws[:, COLUMNS.index(name)]


@pytest.mark.parametrize("side", [24, 31])
def test_the_plain_view_changes_nothing(side):
    images = torch.rand(2, 3, side, side, generator=generator(1))
    torch.testing.assert_close(apply_views(images, plain_views(2)), images, atol=1e-4, rtol=0)


def test_a_flip_swaps_left_and_right():
    torch.testing.assert_close(apply_views(IMAGES, views(flip=1)), IMAGES.flip(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_are_exact(turns):
    turned = apply_views(IMAGES, views(quarter_turns=turns))
    torch.testing.assert_close(turned, torch.rot90(IMAGES, turns, (2, 3)), atol=1e-4, rtol=0)


def test_top_down_shows_all_eight_flips_and_turns_equally_often():
    spec = AugmentSpec(preset="top_down", max_rotate=0, max_zoom=1, max_shift=0, max_lighting=0)
    image = IMAGES[:1]
    expected = [torch.rot90(flipped, turns, (2, 3)) for flipped in (image, image.flip(3)) for turns in range(4)]
    shown = apply_views(image.expand(800, -1, -1, -1), draw_views(800, spec, generator()))
    distances = torch.stack([(shown - one).abs().amax(dim=(1, 2, 3)) for one in expected])
    assert distances.amin(dim=0).max() < 1e-4
    counts = Counter(distances.argmin(dim=0).tolist())
    assert sorted(counts) == list(range(8))
    assert min(counts.values()) > 60


def test_a_rotation_by_a_right_angle_is_a_quarter_turn():
    torch.testing.assert_close(
        apply_views(IMAGES, views(radians=math.pi / 2)), apply_views(IMAGES, views(quarter_turns=1))
    )


def test_zoom_magnifies_the_centre():
    image = torch.zeros(1, 3, 24, 24)
    image[..., 9:15, 9:15] = 1
    zoomed = apply_views(image, views(1, zoom=2))
    assert (zoomed[..., 7:17, 7:17] == 1).all()
    assert (zoomed[..., :5, :] == 0).all()
    assert float(zoomed.mean()) == pytest.approx(4 * float(image.mean()), rel=0.1)


@pytest.mark.parametrize(("axis", "name"), [(3, "shift_x"), (2, "shift_y")])
def test_a_shift_is_a_share_of_the_side_and_mirrors_the_border(axis, name):
    shifted = apply_views(IMAGES, views(**{name: 3 / 24}))
    kept = IMAGES.narrow(axis, 3, 21)
    expected = torch.cat([kept, kept.narrow(axis, 18, 3).flip(axis)], dim=axis)
    torch.testing.assert_close(shifted, expected, atol=1e-4, rtol=0)


def test_the_light_changes_around_the_mean_of_the_image():
    brightness, contrast = torch.tensor([0.1, -0.2, 0.0, 0.05]), torch.tensor([1.0, 1.3, 0.6, 2.0])
    lit = apply_views(IMAGES, views(brightness=brightness, contrast=contrast))
    mean = IMAGES.mean(dim=(1, 2, 3), keepdim=True)
    expected = (IMAGES - mean) * contrast.view(-1, 1, 1, 1) + mean + brightness.view(-1, 1, 1, 1)
    torch.testing.assert_close(lit, expected.clamp(0, 1), atol=1e-4, rtol=0)


def test_every_image_has_a_view_of_its_own():
    draws = draw_views(4, AugmentSpec(max_rotate=40), generator(3))
    together = apply_views(IMAGES, draws)
    for row in range(4):
        torch.testing.assert_close(together[row : row + 1], apply_views(IMAGES[row : row + 1], draws[row : row + 1]))
    same = apply_views(IMAGES[:1].expand(4, -1, -1, -1), draws)
    assert all((same[one] - same[two]).abs().max() > 0.05 for one in range(4) for two in range(one))


@given(
    preset=st.sampled_from(["side_on", "top_down", "basic", "none"]),
    rotate=st.floats(0, 180),
    zoom=st.floats(1, 4),
    shift=st.floats(0, 0.5),
    lighting=st.floats(0, 0.99),
    seed=st.integers(0, 1000),
)
def test_whatever_is_drawn_stays_within_the_spec_and_in_0_to_1(preset, rotate, zoom, shift, lighting, seed):
    spec = AugmentSpec(preset=preset, max_rotate=rotate, max_zoom=zoom, max_shift=shift, max_lighting=lighting)
    draws = draw_views(4, spec, generator(seed))
    assert draws.shape == (4, len(COLUMNS))
    limits = {"radians": math.radians(rotate), "shift_x": shift, "shift_y": shift, "brightness": lighting}
    assert all(column(draws, name).abs().max() <= limit + 1e-6 for name, limit in limits.items())
    assert 1 <= column(draws, "zoom").min() <= column(draws, "zoom").max() <= zoom + 1e-6
    factors = column(draws, "contrast")
    assert 1 / (1 + lighting) - 1e-6 <= factors.min() <= factors.max() <= 1 + lighting + 1e-6
    shown = apply_views(IMAGES, draws)
    assert shown.shape == IMAGES.shape
    assert 0 <= shown.min() <= shown.max() <= 1


@pytest.mark.parametrize(
    ("preset", "flips", "turns"),
    [("side_on", {0, 1}, {0}), ("top_down", {0, 1}, {0, 1, 2, 3}), ("basic", {0}, {0}), ("none", {0}, {0})],
)
def test_a_preset_says_which_flips_and_turns_there_are(preset, flips, turns):
    draws = draw_views(300, AugmentSpec(preset=preset), generator())
    assert set(column(draws, "flip").tolist()) == flips
    assert set(column(draws, "quarter_turns").tolist()) == turns


def test_the_preset_none_changes_nothing():
    spec = AugmentSpec(preset="none", max_rotate=90, max_zoom=2, max_shift=0.5, max_lighting=0.5)
    assert torch.equal(draw_views(5, spec, generator()), plain_views(5))


def test_three_of_four_views_are_rotated():
    radians = column(draw_views(4000, AugmentSpec(), generator()), "radians")
    assert float((radians != 0).float().mean()) == pytest.approx(0.75, abs=0.03)
    assert float((radians > 0).float().mean()) == pytest.approx(0.375, abs=0.03)


def test_more_contrast_is_as_likely_as_less():
    factors = column(draw_views(4000, AugmentSpec(max_lighting=0.5), generator()), "contrast")
    assert float(factors.log().mean()) == pytest.approx(0, abs=0.02)


def test_numbered_views_are_the_same_in_every_call_whatever_the_global_seed():
    torch.manual_seed(1)
    once = numbered_view(3, HASHES[:6], AugmentSpec())
    state = torch.manual_seed(2).get_state()
    assert torch.equal(numbered_view(3, HASHES[:6], AugmentSpec()), once)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_numbered_view_belongs_to_a_content_wherever_it_is():
    every = numbered_view(2, HASHES, AugmentSpec())
    assert torch.equal(numbered_view(2, HASHES[7:3:-1], AugmentSpec()), every[4:8].flip(0))
    assert numbered_view(2, [], AugmentSpec()).shape == (0, len(COLUMNS))


@pytest.mark.parametrize("preset", ["side_on", "top_down", "basic"])
def test_numbered_views_are_distributed_as_fresh_ones(preset):
    """Kolmogorov-Smirnov by column, at a level that one of a thousand such tests would exceed by chance."""
    spec = AugmentSpec(preset=preset, max_rotate=40, max_lighting=0.5)
    fresh = draw_views(len(HASHES), spec, generator(1))
    for view in (1, 2):
        numbered = numbered_view(view, HASHES, spec)
        for name in COLUMNS:
            assert ks_2samp(column(numbered, name), column(fresh, name), method="asymp").pvalue > 1e-4, name
    one, two = (numbered_view(view, HASHES, AugmentSpec())[:, 3:] for view in (1, 2))
    together = torch.corrcoef(torch.cat([one, two], dim=1).T) - torch.eye(10)
    assert together.abs().max() < 0.1  # neither columns nor views depend on each other


def test_numbered_views_differ_except_for_the_plain_one():
    made = [numbered_view(view, HASHES[:6], AugmentSpec()) for view in range(4)]
    assert torch.equal(made[0], plain_views(6))
    assert all(not torch.equal(made[one], made[two]) for one in range(4) for two in range(one))


def test_a_generator_decides_the_views():
    one, two, other = (draw_views(6, AugmentSpec(), generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
