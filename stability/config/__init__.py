"""The configuration of a trial and of a study: plain dataclasses; nothing here knows Hydra."""

from stability.config.data_keys import check_channels, check_classes, check_source
from stability.config.identity import MEMBER_KEYS, identity, in_common, to_dict
from stability.config.parse import check_batch_size, parse_study, parse_trial
from stability.config.ranges import lr_factor, middle, search_range
from stability.config.schema import (
    DataConfig,
    OptunaConfig,
    PackConfig,
    PoolConfig,
    RecipeConfig,
    ScheduleConfig,
    StudyConfig,
    SweepConfig,
    TrainingConfig,
    TrialConfig,
)

__all__ = [
    "MEMBER_KEYS",
    "DataConfig",
    "OptunaConfig",
    "PackConfig",
    "PoolConfig",
    "RecipeConfig",
    "ScheduleConfig",
    "StudyConfig",
    "SweepConfig",
    "TrainingConfig",
    "TrialConfig",
    "check_batch_size",
    "check_channels",
    "check_classes",
    "check_source",
    "identity",
    "in_common",
    "lr_factor",
    "middle",
    "parse_study",
    "parse_trial",
    "search_range",
    "to_dict",
]
