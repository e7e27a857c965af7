"""Settings of a training on images."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from unfreeze.models.settings.addresses import Source
from unfreeze.models.settings.training import Spec, Stage, Training

Augmentation = Literal["side_on", "top_down", "basic", "none"]
"""Random views that suit the subject: ``basic`` rotates, zooms, shifts and changes the light; ``side_on`` adds
left-right flips (animals, products); ``top_down`` all eight flips and quarter turns (satellite, microscope)."""
ClassFolder = Literal["auto", "outer", "inner", "path"]


class DataSpec(Spec):
    """Which images, how they are split, and how large they are trained."""

    source: Source = Field(
        default="digits",
        min_length=1,
        description="`digits`, a folder with a folder per class, a folder with train/ and valid/ (or validation/, "
        "val/, dev/; in any case; test/ beside them tests), a CSV or feather file with a column of paths and one of "
        "labels (or several of 0 and 1), shards or an archive of images, a URL of any of these, or the name of a "
        "torchvision data set (`oxford-iiit-pet`, `imagenette`, ...).",
    )
    class_folder: ClassFolder = Field(
        default="auto",
        description="What names the class where class folders hold folders, as in birds/crow/1.jpg: the `outer` one "
        "(birds), the `inner` one (crow), or their `path` (birds-crow). `auto` refuses what could mean either.",
    )
    size: int | None = Field(
        default=None,
        ge=16,
        le=1024,
        description="Side of the square training image in pixels. Empty: the size the weights were trained at, but "
        "at most eight times the images' own median side.",
    )
    fit: Literal["crop", "squish", "pad"] = Field(
        default="crop",
        description="How an image becomes square: `crop` the centre, `squish` the whole, or `pad` with black.",
    )
    valid_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Share of every class that validates (0 to 1, exclusive); unused where the source has a split.",
    )
    test_fraction: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="Share of every class held out to test the final model; unused where the source has test images "
        "of its own (a folder test/, or `test` in the split column).",
    )
    split_seed: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        description="Seed of the split; kept apart from `seed`, so runs with other seeds share validation rows.",
    )
    split_like: str | None = Field(
        default=None,
        description="Id of an earlier MLflow run: its images stay in the split they were in, and only new ones are "
        "assigned. Unused where the source has a split.",
    )
    path_column: str = Field(default="path", description="Column of image paths, or ids, in a CSV or feather source.")
    image_folder: str | None = Field(
        default=None,
        description="Folder of the images of a CSV or feather source, below the source's own folder. Empty: the "
        "source's own folder.",
    )
    suffix: str = Field(
        default="", description="Suffix to append to the ids of a CSV or feather source, such as `.jpg`."
    )
    label_column: str = Field(default="label", description="Column of labels in a CSV or feather source.")
    label_columns: list[str] = Field(
        default=[],
        description="Columns of 0 and 1, one per label, in place of `label_column`. Empty: where there is no "
        "`label_column`, all other columns if they are of that kind.",
    )
    labels: Literal["auto", "single", "multiple"] = Field(
        default="auto",
        description="Whether an image has one label (`single`) or any number of them (`multiple`). `auto` detects it, "
        "logs its decision, and keeps class names whole if in doubt.",
    )
    label_separator: str | None = Field(
        default=None,
        min_length=1,
        description="Separator between the labels of an image in `label_column`, such as `;` or `space`; implies "
        "`multiple`. Empty: `|`.",
    )
    split_column: str | None = Field(
        default=None,
        description="Column of a CSV or feather source that says `train`, `valid` or `test` per row. "
        "Empty: split by `valid_fraction`.",
    )
    group_column: str | None = Field(
        default=None,
        description="Column of a CSV or feather source with the group of each image, such as a patient or a camera. A "
        "group is never divided between training, validation and test.",
    )
    group_pattern: str | None = Field(
        default=None,
        description="As `group_column`, for a folder: a regular expression whose parentheses match the group in the "
        "path of an image within the source, such as `/(patient[0-9]+)_` or `([^/]+)/[^/]+$` (the image's folder).",
    )
    exclude: str | None = Field(
        default=None,
        description="A text file of image paths to leave out, one per line, such as the likely label errors that a "
        "report lists; relative paths start at the file's folder. Empty: none.",
    )
    max_megapixels: float = Field(
        default=100,
        gt=0,
        le=2000,
        description="Images with more million pixels than this are rejected, so that none can exhaust memory: "
        "decoding one takes at most 12 bytes per pixel of this limit, 1.2 GB at 100. WebP, AVIF and JPEG 2000 need "
        "more per pixel and are rejected from two thirds, five sixths and half of it.",
    )

    pixel_range: tuple[float, float] | None = Field(
        default=None,
        description="Values that become black and white in images of more than 8 bits a sample, such as `[0, 4095]` "
        "for 12 bits, or the window `[-160, 240]` of a CT. Empty: the range of all images of the source.",
    )

    @model_validator(mode="after")
    def _ranges_and_groups_make_sense(self) -> Self:
        if self.pixel_range is not None and not -math.inf < self.pixel_range[0] < self.pixel_range[1] < math.inf:
            raise ValueError(f"pixel_range must ascend, not {list(self.pixel_range)}")
        if self.group_pattern is not None:
            if self.group_column is not None:
                raise ValueError("group_column and group_pattern say the same; omit one of them")
            try:
                count = re.compile(self.group_pattern).groups
            except re.error as error:
                raise ValueError(f"group_pattern is not a regular expression: {error}") from error
            if count != 1:
                raise ValueError(f"group_pattern needs one pair of parentheses around the group, not {count}")
        return self

    @model_validator(mode="after")
    def _labels_fit_together(self) -> Self:
        if self.labels == "single" and self.label_separator is not None:
            raise ValueError("label_separator is for several labels per image; omit it, or set labels to multiple")
        if self.label_columns and self.label_separator is not None:
            raise ValueError("label_columns hold one label each, so there is nothing to separate; omit label_separator")
        return self


class ModelSpec(Spec):
    """The pretrained body and the new head."""

    backbone: str = Field(
        default="timm/tf_efficientnet_lite0",
        min_length=1,
        description="A classifier of timm by name; `resnet34` has torchvision's weights where timm publishes them, "
        "`timm/resnet34` timm's own. `auto` ranks up to 16 backbones whose weights are on this machine by logistic "
        "regression on their features of a sample of the images, and takes the fastest of the equally good ones.",
    )
    weights: str = Field(
        default="imagenet",
        min_length=1,
        description="`imagenet`, `none` (random), the path of a local .pth or .safetensors file, or the folder of a "
        "model that unfreeze trained.",
    )
    head: str | None = Field(
        default=None,
        description="`fastai` (two layers), `linear` (one), or a function of your own as `my.py:head`, which gets "
        "(features, classes, head_width, dropout) and returns a torch module from (B, features) to (B, classes); the "
        "file must stay where the model is used. Empty: `linear` where the recipe fits it by regression.",
    )
    head_width: int = Field(default=512, ge=8, le=8192, description="Units of the head's hidden layer.")
    dropout: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Dropout before the head's last layer; half of it before the hidden layer.",
    )
    drop_path: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="Probability of skipping a residual block of the body while it is trained (stochastic depth), "
        "rising from 0 at the first block to this at the last; 0.1 to 0.3 are usual for transformers.",
    )

    @model_validator(mode="after")
    def _only_published_weights_are_ranked(self) -> Self:
        if self.backbone == "auto" and self.weights != "imagenet":
            raise ValueError("backbone auto ranks networks with their published weights; omit weights, or name one")
        return self


class AugmentSpec(Spec):
    """Random views of a training image, drawn per image on the training device."""

    preset: Augmentation = Field(
        default="side_on",
        description="`side_on`: flips left-right; `top_down`: all eight flips and quarter turns; `basic`: no flips; "
        "`none`: no augmentation at all.",
    )
    max_rotate: float = Field(default=10, ge=0, le=180, description="Largest rotation either way, in degrees.")
    max_zoom: float = Field(default=1.1, ge=1, le=4, description="Largest magnification; 1 is none.")
    max_shift: float = Field(default=0.05, ge=0, le=0.5, description="Largest shift, as a share of the side.")
    max_lighting: float = Field(
        default=0.05, ge=0, lt=1, description="Largest change of brightness and of contrast, as a share of the range."
    )
    mix: str = Field(
        default="none",
        description="Mix the images of a training batch in pairs, and their labels: `mixup` or `cutmix`; not in "
        "stages that train from precomputed activations.",
    )
    mix_alpha: float = Field(
        default=0.2, gt=0, le=10, description="Of `mix`: shares are drawn from Beta(alpha, alpha); 1 is uniform."
    )


class TtaSpec(Spec):
    """Test-time augmentation: average the plain view's probabilities with those of random views."""

    n_aug: int = Field(default=4, ge=0, le=64, description="Augmented views per image; 0 switches TTA off.")


RECIPES = {
    "default": [
        Stage(name="head", train="head", precompute=True, regression=True, views=1),
        Stage(
            name="full",
            train="all",
            lr=0.002,
            schedule="one_cycle",
            cycle_len=5,
            cycle_steps=150,
            fewest_errors=3,
            freeze_batchnorm=True,
        ),
    ],
    "course": [
        Stage(name="head", train="head", precompute=True, find_lr=True, cycles=2, cycle_steps=100, patience=1),
        Stage(name="head-augmented", train="head", views=3, cycles=3, cycle_steps=100, patience=2),
        Stage(
            name="full",
            train="all",
            find_lr=True,
            cycles=3,
            cycle_steps=15,
            cycle_mult=2,
            patience=2,
            fewest_errors=5,
            freeze_batchnorm=True,
        ),
    ],
}
"""Name -> stages.

The default is LP-FT: fine-tune all layers from a head already fitted to the frozen body, which preserves pretrained
features (Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", 2022). It
uses one cycle, because restarts cost a short training its low-loss epochs.
"""


class TrainImages(Training):
    """Everything that defines a training of an image classifier."""

    recipes: ClassVar[Mapping[str, list[Stage]]] = RECIPES

    modality: Literal["images"] = Field(default="images", description="Kind of data.")
    data: DataSpec = Field(default=DataSpec(), description="Which images, how they are split, how large they are.")
    model: ModelSpec = Field(default=ModelSpec(), description="The pretrained body and the new head.")
    augment: AugmentSpec = Field(default=AugmentSpec(), description="Random views of training images.")
    recipe: list[Stage] = Field(
        default=RECIPES["default"],
        min_length=1,
        max_length=20,
        description="The stages in order, or a recipe by name. `default` fits the head by logistic regression on "
        "precomputed activations and then trains all layers from there in one cycle; `course` takes the eight steps of "
        "2017: find an lr and train the head from precomputed activations, train it on augmented images, unfreeze, set "
        "differential lrs, find the lr again, train all layers with growing cycles until over-fitting.",
    )
    refit: bool | None = Field(
        default=None,
        description="Refit the kept model on training and validation images after it was evaluated. Empty: only the "
        "logistic regression, in seconds. true: the network as well, by the same steps, which takes as long as its "
        "training. false: nothing.",
    )
    tta: TtaSpec = Field(default=TtaSpec(), description="Test-time augmentation.")
    devices: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1,
        description="Train on this many devices of this machine, one process each; `auto`: all GPUs. The batch size "
        "is the total over all devices.",
    )
    metrics: list[str] = Field(
        default=["accuracy"],
        description="Computed on all validation rows: `accuracy`, `balanced_accuracy`, `f1`, `f2`, `auc`, `kappa`, "
        "`log_loss`, with several labels per image also `map`, `f1_micro`, `f1_rows` and `f2_rows`, or a function of "
        "your own as `my.py:cost`, which gets NumPy arrays, probabilities (N, C) and classes (N,), or with several "
        "labels (N, L) both, and returns a number.",
    )

    @field_validator("recipe", mode="before")
    @classmethod
    def _named_recipe(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in RECIPES:
            raise ValueError(f"no recipe is named {value!r}; choose from {', '.join(RECIPES)}, or write its stages")
        return RECIPES[value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _regression_fits_a_linear_head(self) -> Self:
        if any(stage.regression for stage in self.recipe) and self.model.head not in (None, "linear"):
            raise ValueError(
                f"model.head {self.model.head!r} cannot be fitted by regression; set it to linear, or recipe to course"
            )
        return self
