"""Folders and tables of images as people, tools and devices leave them: how their labels and split are read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks._reading import Case, Outcome
from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.sources import list_unlabelled, resolve_source
from unfreeze.models.reading.split_words import PARTS, Part
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.predict import Predict

KIND = "image layouts"
Labelled = tuple[str, Part | None]
LEFT_OUT = None


def read_case(
    name: str,
    files: Mapping[str, Labelled | None],
    says: str = "",
    texts: Mapping[str, str] | None = None,
    source: str = "",
    **settings: object,
) -> Case:
    """A source that is read: each file with its label and part, or left out; `says` is in what the user is told."""

    def read(folder: Path) -> Outcome:
        write(folder, files, texts)
        data = DataSpec.model_validate({"source": str(folder / source), **settings})
        listing = resolve_source(data, folder)
        found = {file.path.relative_to(folder).as_posix(): (file.label, file.split) for file in listing.files}
        told = " ".join((listing.understood, listing.note or "", listing.how))
        is_right = found == {path: labelled for path, labelled in files.items() if labelled is not LEFT_OUT}
        return "right" if is_right and says in told else "wrong"

    return Case(KIND, name, read)


def refused_case(
    name: str,
    files: Sequence[str],
    says: str,
    texts: Mapping[str, str] | None = None,
    source: str = "",
    **settings: object,
) -> Case:
    """A source that is refused, with `says` in the message."""

    def read(folder: Path) -> Outcome:
        write(folder, dict.fromkeys(files), texts)
        try:
            resolve_source(DataSpec.model_validate({"source": str(folder / source), **settings}), folder)
        except UserError as error:
            return "refused" if says in str(error) else "wrong"
        return "wrong"

    return Case(KIND, name, read, ("refused",))


def write(folder: Path, files: Mapping[str, object], texts: Mapping[str, str] | None) -> None:
    """Write empty files, as a listing opens no image, and files with a text."""
    for path, text in {**dict.fromkeys(files, ""), **(texts or {})}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def tree(
    pattern: str, split: Mapping[Part | None, str], classes: Sequence[str] = ("cat", "dog")
) -> dict[str, Labelled]:
    """Two images of each class in each part, at `pattern` with ``{split}`` and ``{label}``."""
    return {
        f"{pattern.format(split=word, label=label)}/{number}.jpg": (label, part)
        for part, word in split.items()
        for label in classes
        for number in range(2)
    }


def drawn(files: Mapping[str, Labelled]) -> dict[str, Labelled]:
    """The same where the validation images are drawn from the training ones."""
    return {path: (label, None if part == "train" else part) for path, (label, part) in files.items()}


WORDS = [
    ("train", "valid", "test"),
    ("train", "val", "test"),
    ("Training", "Validation", "Testing"),
    ("TRAIN", "DEV", "TEST"),
    ("seg_train", "seg_valid", "seg_test"),
    ("training_set", "validation_set", "test_set"),
    ("train_images", "val_images", "test_images"),
    ("images_train", "images_val", "images_test"),
    ("Train-Data", "Valid-Data", "Test-Data"),
    ("trainset", "valset", "testset"),
    ("train2017", "val2017", "test2017"),
    ("imagesTrain", "imagesVal", "imagesTest"),
    ("01 train", "02 valid", "03 test"),
]
PATTERNS = {
    "split above class": "{split}/{label}",
    "doubled source": "data/data/{split}/{label}",
    "doubled split": "{split}/{split}/{label}",
    "a folder of images in each": "{split}/images/{label}",
    "split in class": "{label}/{split}",
    "wrapped, split in class": "pets/{label}/{split}",
    "split in class, doubled": "{label}/{label}/{split}",
}
SYSTEM = [
    *("@eaDir/cat/0.jpg", "cat/@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", ".AppleDouble/cat/0.jpg", "cat/.AppleDouble/0.jpg"),
    *("cat/._0.jpg", "cat/Thumbs.db", "dog/.thumbnails/0.jpg", "$RECYCLE.BIN/S-1-5-21/0.jpg"),
    *("System Volume Information/0.jpg", "#recycle/cat/0.jpg", "lost+found/0.jpg", "cat/.ipynb_checkpoints/0.jpg"),
    *("__MACOSX/cat/0.jpg", ".Trash-1000/files/0.jpg", "@Recycle/0.jpg", "cat/.@__thumb/0.jpg", "cat/desktop.ini"),
    *("cat/thumbs/0.jpg", "thumbnails/cat/0.jpg", ".git/0.jpg", "cat/.DS_Store", "#snapshot/cat/0.jpg", "@tmp/0.jpg"),
    *("cat/0_thumb.jpg", "cat/thumb-0.jpg", "dog/1-150x150.jpg"),
]


def _split_cases() -> list[Case]:
    cases = []
    for words in WORDS:
        split: dict[Part | None, str] = dict(zip(PARTS, words, strict=True))
        two: dict[Part | None, str] = {part: word for part, word in split.items() if part != "test"}
        tested: dict[Part | None, str] = {part: word for part, word in split.items() if part != "valid"}
        for name, pattern in PATTERNS.items():
            cases.append(read_case(f"{name}: {', '.join(words)}", tree(pattern, split), f"folders {', '.join(words)}"))
        says = f"2 classes, split by the folders {words[0]}, {words[1]}: cat, dog"
        cases.append(read_case(f"two parts: {words[0]}, {words[1]}", tree("{split}/{label}", two), says))
        says = f"{words[2]}/ only tests the final model"
        cases.append(read_case(f"no valid: {words[0]}, {words[2]}", drawn(tree("{split}/{label}", tested)), says))
        flat = {f"{words[2]}/{number}.jpg": LEFT_OUT for number in range(3)}
        cases.append(
            read_case(f"flat {words[2]}", {**tree("{split}/{label}", two), **flat}, "3 images without a class")
        )
        unknown = {f"{words[2]}/unknown/{number}.jpg": LEFT_OUT for number in range(3)}
        only = drawn(tree("{split}/{label}", {"train": words[0]}))
        cases.append(read_case(f"{words[0]} and {words[2]}/unknown", {**only, **unknown}, "3 images without a class"))
    return cases


def _folder_cases() -> list[Case]:
    plain, split = tree("{label}", {None: ""}), tree("{split}/{label}", {"train": "train", "valid": "valid"})
    pred = {f"seg_pred/seg_pred/{number}.jpg": LEFT_OUT for number in range(2)}
    intel = drawn(tree("{split}/{split}/{label}", {"train": "seg_train", "test": "seg_test"}))
    yolo = {"labels/train/cat/0.txt": "", "labels/val/cat/0.txt": ""}
    folds = {f"fold_{fold}/{label}/{fold}.jpg": (label, None) for fold in range(5) for label in ("cat", "dog")}
    sessions = {f"{label}/2021-01-0{day}/{day}.jpg": (label, None) for day in (1, 2, 3) for label in ("cat", "dog")}
    patients = {f"{label}/patient_{each}/a.jpg": (label, None) for each in (1, 2) for label in ("benign", "malignant")}
    spelled: dict[str, Labelled] = {"train/Cat/0.jpg": ("Cat", "train"), "train/Dog/0.jpg": ("Dog", "train")}
    spelled |= {"valid/cat/1.jpg": ("Cat", "valid"), "valid/DOG /1.jpg": ("Dog", "valid")}
    letters = {f"{letter}/0.jpg": (letter, None) for letter in "aAbB"}
    vehicles = tree("{label}", {None: ""}, ["train", "bus", "car"])
    stations = tree("{label}", {None: ""}, ["train_station", "test_tube"])
    named = tree("{label}_{split}", {"train": "train", "valid": "val"}) | tree("{label}_{split}", {"test": "test"})
    birds = ["birds/crow/0.jpg", "birds/owl/0.jpg", "pets/cat/0.jpg", "pets/dog/0.jpg"]
    return [
        read_case("a folder per class", plain, "2 classes, split at random: cat, dog"),
        read_case("the folders of Intel's scenes", {**intel, **pred}, "seg_pred"),
        read_case("train alone", drawn(tree("{split}/{label}", {"train": "train"})), "from the folder train"),
        read_case("images beside the classes", {**plain, "chart.png": LEFT_OUT}, "left out: 1 images beside"),
        read_case("other folders beside a split", {**split, "raw/a/0.jpg": LEFT_OUT}, "no part of the split"),
        read_case(
            "annotations beside images",
            tree("images/{split}/{label}", {"train": "train", "valid": "val"}),
            "no images in labels/",
            yolo,
        ),
        read_case("folds", folds, "fold_0, fold_1, fold_2 and 2 more are put together"),
        read_case("days in classes", sessions, "folders inside those of the classes do not count"),
        read_case("patients in classes", patients, "folders inside those of the classes do not count"),
        read_case("a folder in each class", tree("{label}/images", {None: ""}), "do not count: images"),
        read_case("parts that spell classes differently", spelled, "are the class 'Dog'"),
        read_case("letters of both cases", letters, "4 classes"),
        read_case(
            "split words in the names of classes too",
            {f"{part}/{part}_{label}/0.jpg": (label, part) for part in PARTS for label in ("cat", "dog")},
            "2 classes, split by the folders train, valid, test",
        ),
        read_case("a class called train", vehicles, "3 classes"),
        read_case("classes with split words", stations, "2 classes, split at random: test_tube, train_station"),
        read_case("class and split in one name", named, "split by the folders"),
        read_case(
            "a class name in two Unicode forms",
            {
                "train/K\u00e4fer/0.jpg": ("K\u00e4fer", "train"),
                "train/Ant/0.jpg": ("Ant", "train"),
                "valid/Ka\u0308fer/0.jpg": ("K\u00e4fer", "valid"),
                "valid/Ant/1.jpg": ("Ant", "valid"),
            },
        ),
        *(
            read_case(
                f"taxonomy by {by}", {path: ("-".join(path.split("/")[at]), None) for path in birds}, class_folder=by
            )
            for by, at in {"outer": slice(1), "inner": slice(1, 2), "path": slice(2)}.items()
        ),
        *(read_case(f"system files: {path}", {**plain, path: LEFT_OUT}) for path in SYSTEM),
        read_case("system files of all kinds", {**split, **{f"train/{path}": LEFT_OUT for path in SYSTEM}}, "@eaDir"),
        refused_case("taxonomy", birds, "could be classes as well: crow, owl. Set data.class_folder"),
        refused_case(
            "crops and their diseases",
            [f"{crop}/{state}/0.jpg" for crop in ("corn", "potato") for state in ("blight", "healthy")],
            "could be classes as well",
        ),
        refused_case(
            "sites with numbered classes",
            [f"{site}/{each}/0.jpg" for site in ("a", "b") for each in "01"],
            "could be classes as well",
        ),
        refused_case(
            "unknown split words",
            [f"{part}/{each}/0.jpg" for part in ("tr", "te") for each in ("cat", "dog")],
            "Layouts that are understood",
        ),
        refused_case(
            "folds with a split each",
            [
                f"fold_{fold}/{part}/{each}/0.jpg"
                for fold in "01"
                for part in ("train", "val")
                for each in ("cat", "dog")
            ],
            "Layouts that are understood",
        ),
        refused_case("a test beside classes", ["cat/0.jpg", "dog/0.jpg", "test/0.jpg"], "would be part of a split"),
        refused_case("no train", ["valid/cat/0.jpg", "test/dog/0.jpg"], "which needs train/ and valid/"),
        refused_case(
            "train twice",
            [f"{part}/{each}/0.jpg" for part in ("train", "Training", "val") for each in "ab"],
            "both mean train",
        ),
        refused_case("flat images", ["0.jpg", "1.jpg"], "no folders of classes. Layouts that are understood"),
        refused_case("flat parts", ["train/cat.0.jpg", "train/dog.0.jpg", "test/1.jpg"], "Layouts that are understood"),
        *(
            refused_case(
                f"classes {one!r} and {two!r}", [f"{one}/0.jpg", f"{two}/1.jpg", "dog/2.jpg"], "differ in case"
            )
            for one, two in [("Cat", "cat"), ("cat", "cat "), ("red fox", "red_fox"), ("Red-Fox", "red fox")]
        ),
    ]


ROBOFLOW = "filename, cat, dog, young\n{0}a.jpg, 1, 0, 1\n{0}b.jpg, 0, 1, 0\n{0}c.jpg, 1, 0, 0\n"


def _table_cases() -> list[Case]:
    flat: dict[str, Labelled] = {"a.png": ("cat", None), "b.png": ("dog", None), "c.png": ("cat", None)}
    rows = [(path, label) for path, (label, _) in flat.items()]
    lines = {
        "metadata.csv": "file_name,label\n" + "".join(f"{path},{label}\n" for path, label in rows),
        "metadata.jsonl": "".join(json.dumps({"file_name": path, "label": label}) + "\n" for path, label in rows),
        "labels.csv": "image;species\n" + "".join(f"{path};{label}\n" for path, label in rows),
        "data.csv": "id,class,age\n" + "".join(f"{path[0]},{label},{len(path)}\n" for path, label in rows),
    }
    cases = [
        read_case(f"images beside {name}", flat, f"labels are read from {name}", {name: text})
        for name, text in lines.items()
    ]
    cases += [read_case(f"{name} as the source", flat, "", {name: text}, name) for name, text in lines.items()]
    for words in (("train", "valid"), ("train", "val"), ("Training", "Validation")):
        sides = list(zip(words, PARTS[:2], strict=True))
        marks: dict[str, Labelled] = {
            f"{word}/{word}_{name}.jpg": (label, part)
            for word, part in sides
            for name, label in (("a", "cat|young"), ("b", "dog"), ("c", "cat"))
        }
        tables = {f"{word}/_classes.csv": ROBOFLOW.format(f"{word}_") for word, _ in sides}
        cases.append(read_case(f"_classes.csv in {words}", marks, f"split by the folders {', '.join(words)}", tables))
        files: dict[str, Labelled] = {f"{word}/{path}": (label, part) for word, part in sides for path, label in rows}
        for name in ("metadata.csv", "metadata.jsonl"):
            tables = {f"{word}/{name}": lines[name] for word, _ in sides}
            cases.append(read_case(f"{name} in {words}", files, f"split by the folders {', '.join(words)}", tables))
    prefixes = {
        "uploads": "/data/upload/3/0a1b2c3d-",
        "local files": "/data/local-files/?d=photos/",
        "a Windows path": "C:\\Users\\anna\\photos\\",
        "a path of another machine": "/home/anna/photos/",
        "an address": "https://labels.example.org/data/photos/",
    }
    moved: dict[str, Labelled] = {f"photos/{path}": labelled for path, labelled in flat.items()}
    for name, prefix in prefixes.items():
        text = "id,image,choice,annotator\n" + "".join(
            f"{7 + n},{prefix}{path},{label},1\n" for n, (path, label) in enumerate(rows)
        )
        cases.append(read_case(f"paths are {name}", moved, "are read as", {"export.csv": text}, "export.csv"))
    choices = [("a.png", '"{""choices"": [""cat"", ""young""]}"'), ("b.png", "dog"), ("c.png", "cat")]
    export = "id,image,choice\n" + "".join(
        f"{9 + n},/data/upload/1/0a1b2c3d-{path},{cell}\n" for n, (path, cell) in enumerate(choices)
    )
    several: dict[str, Labelled] = {"a.png": ("cat|young", None), "b.png": ("dog", None), "c.png": ("cat", None)}
    split = "path,label,{}\na.png,cat,train\nb.png,dog,train\nc.png,cat,{}\n"
    parts: dict[str, Labelled] = {"a.png": ("cat", "train"), "b.png": ("dog", "train"), "c.png": ("cat", "valid")}
    return [
        *cases,
        read_case("choices of Label Studio", several, "any number of labels", {"t.csv": export}, "t.csv"),
        *(
            read_case(
                f"a column {name} of the split",
                parts,
                f"split by the column {name}",
                {"t.csv": split.format(name, word)},
                "t.csv",
            )
            for name, word in (("split", "valid"), ("set", "val"))
        ),
        read_case(
            "a column that is not used",
            flat,
            "not used: age",
            {"t.csv": "path,label,age\na.png,cat,3\nb.png,dog,4\nc.png,cat,5\n"},
            "t.csv",
        ),
        read_case(
            "a number of each class",
            flat,
            "not used: label_id",
            {"t.csv": "path,label,label_id\na.png,cat,0\nb.png,dog,1\nc.png,cat,0\n"},
            "t.csv",
        ),
        read_case(
            "two columns of labels, both asked for",
            several,
            "from the columns label, label2",
            {"t.csv": "path,label,label2\na.png,cat,young\nb.png,dog,\nc.png,cat,\n"},
            "t.csv",
            labels="multiple",
        ),
        read_case(
            "two columns of labels, one asked for",
            flat,
            "not used: label2",
            {"t.csv": "path,label,label2\na.png,cat,young\nb.png,dog,\nc.png,cat,\n"},
            "t.csv",
            labels="single",
        ),
        *(
            refused_case(
                f"labels also in {name}",
                [*flat],
                "set data.labels to `multiple`",
                {"t.csv": f"path,label,{name}\na.png,cat,young\nb.png,dog,old\nc.png,cat,{cell}\n"},
                "t.csv",
            )
            for name, cell in (
                ("label2", "old"),
                ("label_2", "old"),
                ("class", "old"),
                ("tags", "old"),
                ("second label", "old"),
            )
        ),
        refused_case(
            "two columns of one name",
            [*flat],
            "several columns are called label",
            {"t.csv": "path,label,label\na.png,cat,young\nb.png,dog,old\nc.png,cat,old\n"},
            "t.csv",
        ),
        refused_case(
            "the labels of another column",
            [*flat],
            "set data.labels to `multiple`",
            {"t.csv": "path,label,also\na.png,cat,dog\nb.png,dog,\nc.png,cat,\n"},
            "t.csv",
        ),
        *(
            refused_case(
                f"unquoted labels {text!r}",
                [*flat],
                "quote values that contain commas",
                {"t.csv": f"path,label\na.png,{text}\nb.png,dog\nc.png,cat\n"},
                "t.csv",
            )
            for text in ("cat, young", "cat,young,indoor", "cat , young")
        ),
        refused_case(
            "labels that differ in case",
            [*flat],
            "differ in case",
            {"t.csv": "path,label\na.png,Cat\nb.png,dog\nc.png,cat\n"},
            "t.csv",
        ),
        read_case(
            "a table for each part",
            {"images/a.png": ("cat", "train"), "images/b.png": ("dog", "train"), "images/c.png": ("cat", "valid")},
            "split by the tables train.csv, val.csv",
            {"train.csv": "file,label\na.png,cat\nb.png,dog\n", "val.csv": "file,label\nc.png,cat\n"},
        ),
        read_case(
            "a table of ids beside an example of answers",
            {"train/a.png": ("cat", None), "train/b.png": ("dog", None), "test/c.png": LEFT_OUT},
            "labels are read from labels.csv",
            {"labels.csv": "id,breed\na,cat\nb,dog\n", "sample_submission.csv": "id,cat,dog\nc,0.5,0.5\n"},
        ),
        read_case(
            "paths with folders of a split",
            {"train/a.png": ("cat", "train"), "train/b.png": ("dog", "train"), "val/c.png": ("cat", "valid")},
            "split by the folders train, val",
            {"metadata.csv": "file_name,label\ntrain/a.png,cat\ntrain/b.png,dog\nval/c.png,cat\n"},
        ),
        read_case(
            "a list of one choice in every row",
            flat,
            "one label per image",
            {"t.csv": "".join(["path,choice\n", *(f'{path},"[""{label}""]"\n' for path, label in rows)])},
            "t.csv",
        ),
        read_case("separated by tabs", flat, "", {"t.tsv": lines["metadata.csv"].replace(",", "\t")}, "t.tsv"),
        refused_case(
            "several tables beside images",
            [*flat],
            "give one as the source",
            {"train.csv": lines["metadata.csv"], "test.csv": "file_name\nc.png\n"},
        ),
        refused_case(
            "paths that lead nowhere",
            [*flat],
            "no file at the path",
            {"t.csv": "path,label\nx/q.png,cat\nx/r.png,dog\n"},
            "t.csv",
        ),
        refused_case(
            "no column of paths",
            [*flat],
            "has no column 'path'",
            {"t.csv": "picture,label\nq.png,cat\nr.png,dog\n"},
            "t.csv",
        ),
        refused_case(
            "two columns of paths",
            [*flat],
            "several columns of image paths",
            {"t.csv": "image,mask,label\na.png,b.png,cat\nb.png,c.png,dog\n"},
            "t.csv",
        ),
    ]


def _prediction_case(name: str, files: Sequence[str], skipped: Sequence[str]) -> Case:
    def read(folder: Path) -> Outcome:
        write(folder, dict.fromkeys([*files, *skipped]), None)
        found = list_unlabelled(Predict(source=str(folder)), folder)
        return "right" if found.files == sorted(str(folder / file) for file in files) else "wrong"

    return Case(KIND, name, read)


CASES = [
    *_split_cases(),
    *_folder_cases(),
    *_table_cases(),
    _prediction_case("images to predict beside system files", ["0.jpg", "cat/0.jpg", "dog/1.jpg"], SYSTEM),
]
