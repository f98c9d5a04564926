"""The stages of training, one class each (Jiang et al. 2024, §Methodology and §Losses): adaptor, experts, fusion.

FtAtt comes early, because what histories read of texts in stage 1 comes from its projection; then all but the n-grams
is frozen and computed once a text, and the fusion trains on those vectors.
"""

from mrse_model.training.stages.adaptor import AdaptorStage
from mrse_model.training.stages.base import Stage
from mrse_model.training.stages.experts import FtAttStage, LightBertStage, VBertStage
from mrse_model.training.stages.fusion import FusionStage

IN_ORDER: tuple[type[Stage], ...] = (AdaptorStage, FtAttStage, LightBertStage, VBertStage, FusionStage)
STAGES = tuple(stage.name for stage in IN_ORDER)
