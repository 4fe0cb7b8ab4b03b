from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.conftest import Digits
from training.augment import STRONG, Strength, _extent, _neighbourhood_maximum, add_habits, augment, warp

NONE = Strength()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits(test_digits: Digits) -> tuple[Tensor, Tensor]:
    images, labels = test_digits
    return torch.from_numpy(images[:400].copy()), torch.from_numpy(labels[:400].astype(np.int64))


def changed(digits: tuple[Tensor, Tensor], strength: Strength, seed: int = 0) -> Tensor:
    return augment(*digits, strength, generator(seed))


def test_no_strength_leaves_the_pictures_as_they_are(digits: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(changed(digits, NONE), digits[0])


@pytest.mark.parametrize("name", [field.name for field in fields(Strength)])
def test_each_kind_of_change_changes_pictures_and_keeps_their_form(name: str, digits: tuple[Tensor, Tensor]) -> None:
    result = changed(digits, replace(NONE, **{name: getattr(STRONG, name)}))
    assert result.dtype == torch.uint8
    assert result.shape == digits[0].shape
    assert not torch.equal(result, digits[0])


def test_the_generator_decides_everything(digits: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(changed(digits, STRONG, seed=1), changed(digits, STRONG, seed=1))
    assert not torch.equal(changed(digits, STRONG, seed=1), changed(digits, STRONG, seed=2))


def test_the_pictures_given_are_left_alone(digits: tuple[Tensor, Tensor]) -> None:
    before = digits[0].clone()
    changed(digits, STRONG)
    assert torch.equal(digits[0], before)


def test_a_shift_moves_the_centre_of_ink_by_at_most_its_bound(digits: tuple[Tensor, Tensor]) -> None:
    moved = centres(changed(digits, replace(NONE, shift_px=2.0))) - centres(digits[0])
    assert 0.8 < moved.abs().mean() < 1.2
    assert moved.abs().max() < 2.2


def test_what_moves_by_nothing_keeps_every_level_of_grey(digits: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(changed(digits, replace(NONE, shift_px=1e-7)), digits[0])


def spreads(x: float, y: float, strength: Strength) -> Tensor:
    """Warp bells of these standard deviations; return their variances along x and y and their covariance: (3, 1000)."""
    axis = torch.arange(28.0) - 13.5
    bell = torch.exp(-((axis / x) ** 2) / 2) * torch.exp(-((axis[:, None] / y) ** 2) / 2)
    ink = warp(bell.expand(1000, 28, 28), strength, generator())
    ink = ink / ink.sum(dim=(1, 2), keepdim=True)
    columns, rows = axis.expand(28, 28), axis[:, None].expand(28, 28)
    return torch.stack([(ink * moment).sum(dim=(1, 2)) for moment in (columns**2, rows**2, columns * rows)])


def test_each_axis_is_scaled_within_its_bounds() -> None:
    along_x, along_y, _ = spreads(3, 3, replace(NONE, scale=0.2))
    for factor in (3 / along_x.sqrt(), 3 / along_y.sqrt()):
        assert (factor.min(), factor.max()) == (pytest.approx(0.8, abs=0.02), pytest.approx(1.2, abs=0.02))
        assert factor.mean() == pytest.approx(1, abs=0.02)


def test_a_slant_stays_within_its_bounds() -> None:
    _, along_y, both = spreads(3, 3, replace(NONE, shear=0.25))
    slant = both / along_y
    assert (slant.min(), slant.max()) == (pytest.approx(-0.25, abs=0.02), pytest.approx(0.25, abs=0.02))


def test_a_rotation_has_half_its_bound_as_standard_deviation() -> None:
    along_x, along_y, both = spreads(4, 2, replace(NONE, rotation_deg=15.0))
    angle = torch.rad2deg(torch.atan2(2 * both, along_x - along_y) / 2)
    assert angle.abs().max() == pytest.approx(15, abs=0.5)
    assert angle.std() == pytest.approx(7.2, rel=0.05)  # of a bell that is cut at two standard deviations


def test_a_rotation_keeps_the_ink_and_its_centre(digits: tuple[Tensor, Tensor]) -> None:
    turned = changed(digits, replace(NONE, rotation_deg=18.0))
    assert turned.sum() == pytest.approx(float(digits[0].sum()), rel=0.01)
    assert (centres(turned) - centres(digits[0])).abs().mean() < 0.3


def test_bending_moves_a_node_by_its_standard_deviation() -> None:
    axis = torch.arange(28.0) / 27
    for ramp in (axis.expand(28, 28), axis[:, None].expand(28, 28)):
        bent = warp(ramp.expand(4000, 28, 28), replace(NONE, elastic_px=0.8), generator())
        # The middle one of the 5x5 nodes lies between the four pixels of the middle.
        moved = 27 * (bent - ramp)[:, 13:15, 13:15].mean(dim=(1, 2))
        assert moved.std() == pytest.approx(0.8, rel=0.06)


def test_pens_become_thinner_and_thicker_and_no_digit_vanishes(digits: tuple[Tensor, Tensor]) -> None:
    ink = changed(digits, replace(NONE, pen=1.0)).float().sum(dim=(1, 2)) / digits[0].float().sum(dim=(1, 2))
    assert ink.min() > 0.25
    assert ink.min() < 0.8
    assert ink.max() > 1.4


@pytest.mark.parametrize("sign", [1, -1])
def test_the_maximum_of_a_neighbourhood_is_that_of_nine_pixels(sign: int, digits: tuple[Tensor, Tensor]) -> None:
    ink = sign * digits[0].float() / 255
    assert torch.equal(_neighbourhood_maximum(ink), functional.max_pool2d(ink.unsqueeze(1), 3, 1, 1).squeeze(1))


@pytest.mark.parametrize("name", ["pen", "contrast", "habits"])
def test_a_fraction_of_the_pictures_is_changed_and_the_others_are_not(name: str, digits: tuple[Tensor, Tensor]) -> None:
    result = augment(digits[0], torch.ones_like(digits[1]), replace(NONE, **{name: 0.3}), generator())
    assert (result != digits[0]).any(dim=2).any(dim=1).float().mean() == pytest.approx(0.3, abs=0.06)


def test_contrast_hardens_edges(digits: tuple[Tensor, Tensor]) -> None:
    def grey(images: Tensor) -> float:
        return float(((images > 40) & (images < 160)).float().mean())

    hardened = changed(digits, replace(NONE, contrast=1.0))
    assert grey(hardened) < grey(digits[0])
    darkest = hardened.amax(dim=2).amax(dim=1)
    assert (darkest == 255).float().mean() == pytest.approx(0.5, abs=0.1)
    assert 0.65 * 255 - 1 <= darkest.min() < 0.7 * 255


def test_habits_touch_ones_fours_and_sevens_only(digits: tuple[Tensor, Tensor]) -> None:
    ink = digits[0].float() / 255
    touched = (add_habits(ink, digits[1], 1.0, generator()) != ink).any(dim=2).any(dim=1)
    assert set(digits[1][touched].tolist()) == {1, 4, 7}
    assert touched[(digits[1] == 1) | (digits[1] == 4) | (digits[1] == 7)].float().mean() > 0.98


def test_habits_never_take_ink_from_a_one_or_a_seven(digits: tuple[Tensor, Tensor]) -> None:
    ink, labels = digits[0].float() / 255, digits[1]
    result = add_habits(ink, labels, 1.0, generator())
    kept = (labels == 1) | (labels == 7)
    assert (result[kept] >= ink[kept]).all()
    # An upstroke lies to the left of the stem and below its top; a bar lies across it.
    assert (result - ink)[labels == 1].sum(dim=1).argmax(dim=1).float().mean() < 14
    top, bottom = _extent(ink)
    row = centres(result - ink)[:, 1]
    assert (row > top)[labels == 1].all()
    height = ((row - top) / (bottom - top))[labels == 7]
    assert 0.4 < height.min() < height.max() < 0.75
    inked = (result - ink > 0.4).any(dim=1).float()
    width = 28 - inked.argmax(dim=1) - inked.flip(1).argmax(dim=1)
    assert width[labels == 7].float().mean() == pytest.approx(10, abs=1)


def test_a_four_that_is_closed_is_drawn_anew(digits: tuple[Tensor, Tensor]) -> None:
    ink = digits[0][digits[1] == 4].float() / 255
    result = add_habits(ink, torch.full((len(ink),), 4), 1.0, generator())
    assert ((ink > 0.5) & (result == 0)).any(dim=2).any(dim=1).float().mean() > 0.9


def test_what_is_no_digit_gets_no_habits(digits: tuple[Tensor, Tensor]) -> None:
    ink = digits[0].float() / 255
    assert torch.equal(add_habits(ink, torch.full_like(digits[1], -1), 1.0, generator()), ink)


def test_an_empty_batch_and_an_empty_picture_go_through() -> None:
    empty = torch.zeros(0, 28, 28, dtype=torch.uint8)
    assert augment(empty, torch.zeros(0, dtype=torch.int64), STRONG, generator()).shape == (0, 28, 28)
    blank = torch.zeros(30, 28, 28, dtype=torch.uint8)
    result = augment(blank, torch.arange(30) % 10, replace(STRONG, habits=0.0), generator())
    assert result.sum() == 0


def centres(images: Tensor) -> Tensor:
    """Centre of ink of each picture, in pixels: (N, 2)."""
    ink = images.double()
    axis = torch.arange(28, dtype=torch.float64)
    total = ink.sum(dim=(1, 2))
    return torch.stack([(ink.sum(dim=1) * axis).sum(1) / total, (ink.sum(dim=2) * axis).sum(1) / total], dim=1)
