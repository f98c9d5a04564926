"""An items file and all that its documents are made of, each by its path: what `mrse feed items`, `mrse verify` and
`mrse migrate` open.

    from feeders.inputs import open_items
    source = open_items("items.parquet", "vespa_app", features="features.parquet", searches="searches.parquet")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from feeders.image_features import EncodedImages, ExtractedFeatures, Images, NoImages
from feeders.item_queries import ItemQueries, item_queries_for, missing_popularity
from feeders.items import ItemSource
from mrse_model.data.contract import ItemsFile
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.serving.images import ImageEncoder
from mrse_model.serving.manifest import Manifest
from vespa_package.fields import DocumentType


def open_items(
    file: str | Path | Sequence[Path],
    app: str | Path,
    model: ExportedModel | None = None,
    *,
    features: str | Path | None = None,
    feature_column: str = "feature",
    image_encoder: str | Path | None = None,
    images: bool = True,
    searches: str | Path | None = None,
    judgments: str | Path | None = None,
    item_queries: ItemQueries | None = None,
    columns: Sequence[str] | None = None,
    title: str = "title",
    language: str | None = None,
    check_images: bool = True,
    vectors: str | Path | None = None,
    next_models: str | Path | None = None,
    warn: Callable[[str], object] = print,
) -> ItemSource:
    """Opens and checks the items of `file` for the package `app`.

    Args:
        model: default: the one in the package. images: False to encode the texts alone.
        item_queries: those of searches and judgments, where they are read already.
        columns, language, check_images: as in ItemSource.open.
        vectors: shards of `mrse encode`, which already hold what features, image_encoder, searches, judgments and
            next_models give; searches are still needed for popularity, where the model learnt it from clicks.
        next_models: during a migration, the new model's export. warn: is given a line a remark.

    Raises InputError with all that is wrong, before anything is sent.
    """
    model = model or ExportedModel.load(Path(app) / "models")
    path = Path(file) if isinstance(file, str) else file
    counts_clicks = model.manifest.popularity == "clicks"
    if vectors and (features or image_encoder or (searches and not counts_clicks) or judgments or next_models):
        problem = "--vectors has what --features, --image-encoder, --searches, --judgments and --next-models make"
        raise InputError(problem, fix="Give those to mrse encode")
    if item_queries is None and not vectors:
        item_queries = item_queries_for(model.manifest, searches, judgments, warn)
    elif vectors and searches:
        item_queries = ItemQueries(model.manifest, searches)
    source = ItemSource.open(
        path,
        DocumentType.load(Path(app)),
        model,
        NoImages() if vectors else images_of(path, model.manifest, features, feature_column, image_encoder, images),
        item_queries=item_queries,
        columns=columns,
        title=title,
        check_images=check_images,
        next_model=ExportedModel.load(next_models) if next_models else None,
        language=language,
        vectors=Path(vectors) if vectors else None,
    )
    for some in (model, source.next_model):
        if some and (line := missing_popularity(some.manifest, source.items, source.columns, source.popularity)):
            warn(line)
    return source


def images_of(
    file: Path | Sequence[Path],
    manifest: Manifest,
    features: str | Path | None = None,
    feature_column: str = "feature",
    image_encoder: str | Path | None = None,
    wanted: bool = True,
) -> Images:
    """Where the image features of these items come from. Raises InputError where the model sees images, the file has
    some, and neither features nor an encoder is given.
    """
    if features and image_encoder:
        raise InputError("--features and --image-encoder exclude each other", fix="Give one of them")
    if features:
        return ExtractedFeatures(features, manifest, column=feature_column)
    items = ItemsFile(file, title=None)
    if image_encoder:
        return EncodedImages(ImageEncoder.load(image_encoder), manifest, items.path)
    if wanted and manifest.image_encoder and items.image_column:
        raise InputError(
            "the model uses images and the file has some, but no image features are given",
            file=items.path,
            field="image",
            fix="Give --features (mrse features) or --image-encoder image_encoder.onnx, or --no-images",
        )
    return NoImages()
