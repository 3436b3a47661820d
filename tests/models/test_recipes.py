"""Recipes: whose is taken, and what a user's wishes change in it."""

from core.models.architectures import BUILDERS
from core.models.names import BACKBONES
from core.models.recipes import (
    QUICK_DROPOUT,
    QUICK_EPOCHS,
    QUICK_PX,
    RECIPES,
    adapt_recipe,
    find_recipe,
)


def test_a_control_is_trained_as_its_model_is_from_the_same_start():
    assert find_recipe("mobilenetv2_random", "random") == RECIPES["mobilenetv2", "random"]
    assert find_recipe("mobilenetv2", "file:mine.h5") == RECIPES["mobilenetv2", "imagenet"]
    assert find_recipe("cnn", "imagenet") == RECIPES["cnn", "random"]
    assert find_recipe("somebodys_model", "random") == RECIPES["cnn", "random"]


def test_every_model_has_a_recipe_whose_frozen_stages_come_first():
    for name in BUILDERS:
        for init in ("random", "imagenet"):
            cuts = [stage.cut for stage in find_recipe(name, init).stages]
            assert cuts == sorted(cuts, key=lambda cut: cut is None)
            random_layers_train = init == "imagenet" or cuts == [None]
            assert random_layers_train or name in BACKBONES, "frozen by its name alone"


def test_quick_and_epochs_only_ever_shorten():
    for recipe in RECIPES.values():
        quick = adapt_recipe(recipe, image_size_px=None, epochs=None, quick=True)
        assert quick.image_size_px == QUICK_PX
        assert quick.dropout == min(recipe.dropout, QUICK_DROPOUT)
        for before, after in zip(recipe.stages, quick.stages, strict=True):
            assert after.epochs == min(before.epochs, QUICK_EPOCHS)
        short = adapt_recipe(recipe, image_size_px=96, epochs=2, quick=True)
        assert short.image_size_px == 96
        assert [stage.epochs for stage in short.stages] == [2] * len(recipe.stages)
        longer = adapt_recipe(recipe, image_size_px=None, epochs=QUICK_EPOCHS + 1, quick=True)
        if recipe.stages[0].solver == "steps":
            assert longer.stages[0].epochs == QUICK_EPOCHS + 1, "what is asked for counts"
        assert adapt_recipe(recipe, image_size_px=None, epochs=99, quick=False) == recipe
