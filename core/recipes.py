"""How each model is trained: numbers only, chosen on the validation split.

A recipe is a list of stages. A `frozen` stage computes what lies below `cut` once for a few
augmented views of every image and trains only what lies above; a `whole` stage trains every layer
on freshly augmented images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stage:
    """One phase of training.

    cut: name of the last frozen layer; None trains every layer. views: augmented copies whose
    frozen outputs are cached (the first one is the image itself). learning_rate is the peak,
    reached after `warmup` epochs and then lowered by a cosine to one hundredth. patience: epochs
    without a better validation loss before the stage ends.
    """

    name: str
    epochs: int
    learning_rate: float
    cut: str | None = None
    views: int = 6
    warmup: float = 1.0
    patience: int = 6
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how one model is made from the images, apart from the seed.

    tried counts the recipes compared on validation before this one was kept, this one included.
    step_ms: milliseconds of training an image an epoch, whole, on 2 cores at image_size_px.
    """

    image_size_px: int
    stages: tuple[Stage, ...]
    batch_size: int = 32
    dropout: float = 0.3
    label_smoothing: float = 0.05
    rotation_deg: float = 8.0
    zoom: float = 0.1
    shift: float = 0.05
    contrast: float = 0.2
    flip: bool = True
    flip_at_test: bool = True
    tried: int = 1
    step_ms: float = 10.0


def _whole(epochs: int, learning_rate: float) -> Stage:
    # The cosine pays off late, so patience is long.
    return Stage("all layers", epochs, learning_rate, warmup=2.0, patience=30, weight_decay=0.05)


# A quick run has few steps, in which strongly altered images teach nothing.
QUICK_PX, QUICK_EPOCHS = 64, 7
QUICK = {"rotation_deg": 2.0, "zoom": 0.03, "shift": 0.02, "contrast": 0.05, "dropout": 0.2,
         "label_smoothing": 0.0}  # fmt: skip

# The key is (model, init); a model whose init is not listed uses its "random" recipe.
RECIPES: dict[tuple[str, str], Recipe] = {
    ("cnn", "random"): Recipe(
        image_size_px=112, stages=(_whole(40, 1e-3),), dropout=0.4, tried=3, step_ms=26.0
    ),
    ("resnet50", "random"): Recipe(
        image_size_px=112, stages=(_whole(36, 1e-3),), dropout=0.3, step_ms=45.0
    ),
    ("resnet50", "imagenet"): Recipe(
        image_size_px=224,
        stages=(
            Stage("head", 15, 1e-3, cut="features", views=4),
            Stage("block 5", 12, 1e-4, cut="conv4_block6_out", views=4),
        ),
        step_ms=60.0,
    ),
    ("mobilenetv2", "random"): Recipe(
        image_size_px=112, stages=(_whole(36, 1e-3),), dropout=0.2, step_ms=28.0
    ),
    # Resolution was what helped: log loss on validation 0.50 at 224 px, 0.42 at 320, 0.38 at 448.
    ("mobilenetv2", "imagenet"): Recipe(
        image_size_px=448,
        stages=(
            Stage("head", 15, 1e-3, cut="features", views=6),
            Stage("blocks 13 to 16", 20, 2e-4, cut="block_12_add", views=8, patience=12),
        ),
        tried=6,
        step_ms=12.0,
    ),
}


def find_recipe(model: str, init: str) -> Recipe:
    """The recipe of a model for the init it really got ("imagenet", "random" or "file:NAME")."""
    kind = "random" if init == "random" else "imagenet"
    base = model.removesuffix("_random")  # a control is trained as its model is
    for key in ((base, kind), (base, "random")):
        if key in RECIPES:
            return RECIPES[key]
    return RECIPES[("cnn", "random")]


def adapt_recipe(
    recipe: Recipe, *, image_size_px: int | None, epochs: int | None, quick: bool
) -> Recipe:
    """The recipe with the user's wishes in it: another size, a cap on epochs, or quick.

    quick is for demonstrations and tests: 64 px, images altered little, and at most
    QUICK_EPOCHS a stage where epochs is None.
    """
    if quick:
        stages = tuple(replace(s, warmup=min(s.warmup, 1.0)) for s in recipe.stages)
        recipe = replace(recipe, image_size_px=QUICK_PX, stages=stages, **QUICK)
        epochs = QUICK_EPOCHS if epochs is None else epochs
    if epochs is not None:
        recipe = _cap(recipe, epochs)
    if image_size_px is not None:
        recipe = replace(recipe, image_size_px=image_size_px)
    return recipe


def _cap(recipe: Recipe, epochs: int) -> Recipe:
    stages = tuple(replace(stage, epochs=min(stage.epochs, epochs)) for stage in recipe.stages)
    return replace(recipe, stages=stages)
