"""Estimator of image classifiers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Never

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.utils import ClassifierTags, Tags

from unfreeze.estimators.base import Estimator
from unfreeze.estimators.configured import Config
from unfreeze.estimators.in_memory import ENCODED, arrow_table, images_in, is_frame, keep, labels_in
from unfreeze.models.errors import UserError
from unfreeze.models.images.modality import list_images, list_labelled
from unfreeze.models.reading.labels import join, matrix_of, split
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.images import Augmentation
from unfreeze.models.settings.predict import Predict

LABEL, PATH, IMAGE = "label", "path", "image"


class Images(Estimator):
    """Classifier of images with one label, or several labels, each.

    Parameters
    ----------
    source
        What `fit` trains on by default: a folder of class folders, a file, a URL (see `data.source` of the settings),
        or a frame with a column of paths or encoded bytes, and one of labels.
    backbone
        Classifier of timm or torchvision: ``"resnet34"``, ``"auto"``.
    weights
        ``"imagenet"``, ``"none"``, or a file of weights.
    size
        Side of the square training image in pixels.
    recipe
        ``"course"``, ``"default"``, or a list of stages.
    augment
        Random views: ``"side_on"``, ``"top_down"``, ``"basic"`` or ``"none"``.
    batch_size
        Images of a batch.
    path_column, label_column
        Columns of a table or frame.
    test_fraction
        Share of every class that is set aside as test rows.
    seed
        Seed of weights, order and augmentation.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    config
        Other settings: nested, by dotted name (``{"recipe.full.cycles": 2}``), a spec, or a settings file.
    tracked
        Whether `fit` is a run: tracked by MLflow, shown by Prefect, registered as a model.

    Examples
    --------
    >>> from unfreeze import Images
    >>> photos = Images("photos", backbone="timm/test_resnet", weights="none", size=16).fit()
    >>> photos.metrics_["valid/accuracy"] > 0.5
    True
    >>> photos.predict("new.jpg")
    array(['across'], dtype='<U6')
    >>> photos.predict_proba("incoming").shape
    (3, 2)
    >>> list(photos.predict_frame("incoming", coverage=0.8))
    ['class', 'probability', 'probabilities', 'set', 'abstains']
    >>> photos.score("photos") > 0.5
    True
    >>> photos.evaluate("photos").columns.tolist()
    ['value', 'low', 'high']
    >>> photos.report(), photos.explain(["new.jpg"])  # doctest: +ELLIPSIS
    (Page('...report.html'), Page('...explain.html'))
    >>> Images.load(photos.save("photos-model")).predict(["new.jpg"]).tolist()
    ['across']
    >>> figure = Images("photos", backbone="timm/test_resnet", weights="none", size=16).lr_find().plot()
    """

    kind = "images"
    keywords: ClassVar[Mapping[str, str]] = {
        "backbone": "model.backbone",
        "weights": "model.weights",
        "size": "data.size",
        "recipe": "recipe",
        "augment": "augment.preset",
        "batch_size": "optimizer.batch_size",
        "path_column": "data.path_column",
        "label_column": "data.label_column",
        "test_fraction": "data.test_fraction",
        "seed": "seed",
        "device": "device",
    }
    _taken = "a folder or frame, or images and labels: fit('photos'), fit(X, y)"

    def __init__(
        self,
        source: Any = None,
        *,
        backbone: str | None = None,
        weights: str | None = None,
        size: int | None = None,
        recipe: str | Sequence[Any] | None = None,
        augment: Augmentation | None = None,
        batch_size: int | None = None,
        path_column: str | None = None,
        label_column: str | None = None,
        test_fraction: float | None = None,
        seed: int | None = None,
        device: str | None = None,
        config: Config | None = None,
        tracked: bool = False,
        **unknown: Never,
    ) -> None:
        self._keep(locals())

    def __sklearn_tags__(self) -> Tags:
        """Describe the estimator to scikit-learn."""
        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.target_tags.required = True
        return tags

    @property
    def _data_settings(self) -> DataSpec:
        data = self._spec({}).data
        assert isinstance(data, DataSpec)
        return data

    def _given(self, X: Any, y: Any) -> dict[str, Any]:
        if isinstance(X, str | Path):
            if y is not None:
                raise UserError(f"y: {str(X)!r} has labels of its own; give y with a list of images only")
            return {"data.source": str(X)}
        given = {"data.path_column": PATH, "data.label_column": LABEL}
        if is_frame(X) and y is None:
            table, given = self._columns(X), {}
            label_column = self._data_settings.label_column
            if label_column not in table.column_names:
                known = ", ".join(table.column_names)
                raise UserError(f"label_column: the frame has no column {label_column!r}; it has: {known}")
        else:
            table = self._images(X)
            labels = [self._label(each) for each in labels_in(y, table.num_rows)]
            if len({str(each) for each in labels}) < 2:
                raise UserError(f"y: every label is {labels[0]!r}; give images of at least two classes")
            table = table.append_column(LABEL, pa.array(labels))
        return {"data.source": str(keep(table, "images", self._workspace)), **given}

    def _columns(self, frame: Any) -> pa.Table:
        """A frame with absolute paths, or encoded images in the type of `ENCODED`."""
        table, name = arrow_table(frame), self._data_settings.path_column
        for place, column in enumerate(table.schema):
            if pa.types.is_struct(column.type):
                return table
            if column.type in (pa.binary(), pa.large_binary()):
                images = pa.array([{"bytes": each, "path": None} for each in table[place].to_pylist()], ENCODED)
                return table.set_column(place, column.name, images)
        if name not in table.column_names:
            raise UserError(
                f"path_column: the frame has no column {name!r} of paths, nor one of encoded bytes; it has: "
                f"{', '.join(table.column_names)}"
            )
        paths = pa.array(images_in(table[name].to_pylist()), pa.string())
        return table.set_column(table.column_names.index(name), name, paths)

    def _images(self, X: Any) -> pa.Table:
        """Images without labels as a table."""
        if is_frame(X):
            return self._columns(X)
        images = images_in(X)
        if all(isinstance(each, str) for each in images):
            return pa.table({PATH: pa.array(images, pa.string())})
        encoded = [each if isinstance(each, bytes) else Path(each).read_bytes() for each in images]
        return pa.table({IMAGE: pa.array([{"bytes": each, "path": None} for each in encoded], ENCODED)})

    def _label(self, label: Any) -> Any:
        """A label as text, or several."""
        if not isinstance(label, list | tuple | set):
            return str(label)
        if any(not isinstance(each, str) for each in label):
            raise UserError("y: several labels of an image are a list of their names, not numbers or a row of 0 and 1")
        return sorted(label)

    def _listed(self, X: Any) -> tuple[list[str | bytes], pd.Index]:
        """Images to predict, and an index that names them."""
        if isinstance(X, str | Path):
            path_column = self._data_settings.path_column
            listed = list_images(Predict(source=str(X), path_column=path_column), self._workspace)
            return list(listed.files), pd.Index(listed.names, name="path")
        if not is_frame(X):
            images = images_in(X)
            return images, pd.RangeIndex(len(images))
        table = self._columns(X)
        column = next((each for each in table.columns if pa.types.is_struct(each.type)), None)
        if column is None:
            found = table[self._data_settings.path_column].to_pylist()
        else:
            found = [each["bytes"] for each in column.to_pylist()]
        return found, X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(found))

    def _results(self, X: Any) -> tuple[np.ndarray, pd.Index]:
        predictor = self._predictor
        images, index = self._listed(X)
        return predictor.probabilities(images), index

    def _labelled(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        predictor = self._predictor
        if y is None:
            data = self._spec(self._given(X, None)).data
            assert isinstance(data, DataSpec)
            listing = list_labelled(data, self._workspace)
            images: list[str | bytes] = [str(each.path) for each in listing.files]
            texts = [each.label for each in listing.files]
        else:
            images = self._listed(X)[0]
            labels = [self._label(each) for each in labels_in(y, len(images))]
            texts = [each if isinstance(each, str) else join(each) for each in labels]
        several = not predictor.target.exclusive
        named = [split(each) if several else [each] for each in texts]
        if unknown := sorted({name for names in named for name in names} - set(predictor.classes)):
            raise UserError(
                f"the model has no class {', '.join(map(repr, unknown[:5]))}; its classes are "
                f"{', '.join(predictor.classes[:20])}"
            )
        actual = matrix_of(named, predictor.classes)
        return predictor.probabilities(images), actual if several else actual.argmax(1)

    def _unlabelled(self, X: Any) -> str:
        return str(X) if isinstance(X, str | Path) else str(keep(self._images(X), "images", self._workspace))
