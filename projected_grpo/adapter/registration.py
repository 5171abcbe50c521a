"""Makes PEFT know the method, so that get_peft_model, from_pretrained and load_adapter find it.

PEFT's own register_peft_method takes only names of a closed enum. Its three tables are public, and are keyed by
strings: an entry in each is all that a method needs.
"""

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from projected_grpo.adapter.config import SVD_ROUTING, SVDRoutingConfig
from projected_grpo.adapter.model import SVDRoutingModel


def register() -> None:
    """Enters the method into PEFT's tables; doing it again changes nothing."""
    PEFT_TYPE_TO_CONFIG_MAPPING[SVD_ROUTING] = SVDRoutingConfig
    PEFT_TYPE_TO_TUNER_MAPPING[SVD_ROUTING] = SVDRoutingModel
    PEFT_TYPE_TO_PREFIX_MAPPING[SVD_ROUTING] = SVDRoutingModel.prefix
