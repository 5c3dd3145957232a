"""Convolutional references, built by timm: any of its models by name, and small RegNets for small images."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from stability.errors import UserError, nearest
from stability.locate import first_line
from stability.models.limits import MOST_BLOCKS, MOST_CHANNELS
from stability.values import Value

if TYPE_CHECKING:
    from torch import nn


def timm_model(
    *,
    architecture: str,
    image_size: int,
    channels: int,
    num_classes: int,
    drop_path_rate: float = 0.0,
    pretrained: bool = False,
    **arguments: Value,
) -> nn.Module:
    """Build timm's model `architecture`, with random weights unless pretrained ones are asked for.

    Args:
        architecture: a name that timm.list_models() gives.
        image_size: side of the images, in pixels.
        channels: of the images.
        num_classes: the number of logits.
        drop_path_rate: stochastic depth's rate of the last block.
        pretrained: whether the model begins with the weights that timm has for it, from the hub or its cache.
        **arguments: further keyword arguments of that model.

    Raises:
        UserError: timm has no such model, or the model does not take an argument.
    """
    timm = _import_timm()
    if not timm.is_model(architecture):
        close = nearest(architecture, timm.list_models())
        raise UserError(
            f"timm has no architecture {architecture!r}{close}; accepted: a name that timm.list_models() gives"
        )
    # Models with position embeddings are made for one image size; convolutional ones take any and no such argument.
    known = timm.get_pretrained_cfg(architecture)
    if known is not None and known.fixed_input_size:
        given = arguments.setdefault("img_size", image_size)
        if given != image_size and not arguments.get("dynamic_img_size"):
            raise UserError(
                f"model.img_size={given} with data.image_size={image_size}: timm's {architecture} takes images of one "
                "size; accepted: the same number, or data.image_size alone, to which images are resized"
            )
    if drop_path_rate > 0:
        arguments["drop_path_rate"] = drop_path_rate
    if not isinstance(pretrained, bool):
        raise UserError(f"model.pretrained={pretrained!r}; accepted: true, false")
    arguments |= {"in_chans": channels, "num_classes": num_classes}
    try:
        return timm.create_model(architecture, pretrained=pretrained, **arguments)
    except TypeError as error:
        raise UserError(f"timm's {architecture}: {first_line(error)}") from error
    except Exception as error:
        # What a hub raises that cannot be reached, and a model that has no weights there, is many libraries' own.
        if not pretrained:
            raise
        raise UserError(
            f"model.pretrained=true: timm's {architecture} has no weights here ({type(error).__name__}: "
            f"{first_line(error)}); accepted: a network, weights in the hub's cache, or model.init=FILE.safetensors"
        ) from error


def regnet(
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    depth: int,
    w0: int,
    wa: float,
    wm: float,
    group_size: int,
    se_ratio: float,
    stem_width: int,
    stem_stride: int,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Build a RegNet from its parameters, with a stem of any stride (1 for small images).

    Source: Radosavovic et al., CVPR 2020, section 3.3.

    Args:
        image_size: side of the images, in pixels; the model takes any.
        channels: of the images.
        num_classes: the number of logits.
        depth: the number of blocks.
        w0: width of the first block, in channels.
        wa: how much wider each block is than the one before, in channels.
        wm: widths are rounded to w0 times a power of it.
        group_size: channels of a group of the grouped convolutions.
        se_ratio: width of squeeze-and-excitation over the block's; above 0 makes a RegNetY.
        stem_width: channels of the stem.
        stem_stride: stride of the stem.
        drop_path_rate: stochastic depth's rate of the last block.

    Raises:
        UserError: the parameters do not give 4 stages.
    """
    _import_timm()
    from timm.models.regnet import RegNet, RegNetCfg, generate_regnet

    limits = {"depth": (depth, MOST_BLOCKS), "w0": (w0, MOST_CHANNELS), "wa": (wa, MOST_CHANNELS)}
    limits["stem_width"] = (stem_width, MOST_CHANNELS)
    for name, (value, most) in limits.items():
        if isinstance(value, (int, float)) and value > most:
            raise UserError(f"{name}={value!r}; accepted: a number of at most {most:,}")
    given = f"depth={depth}, w0={w0}, wa={wa}, wm={wm}"
    try:
        stages = generate_regnet(wa, w0, wm, depth, group_size)[1]
    except (AssertionError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"{given} make no RegNet; accepted: depth and w0 above 0, wa of at least 0, wm above 1"
        ) from error
    if stages != 4:
        raise UserError(f"{given} give a RegNet of {stages} stages; accepted: parameters that give 4")
    config = RegNetCfg(depth, w0, wa, wm, group_size, se_ratio=se_ratio, stem_width=stem_width)
    model = RegNet(config, in_chans=channels, num_classes=num_classes, drop_path_rate=drop_path_rate)
    model.stem.conv.stride = (stem_stride, stem_stride)
    return model


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"this model is built by timm, which cannot be imported ({first_line(error)}): pip install 'stability[cnn]'"
        ) from error
    return timm
